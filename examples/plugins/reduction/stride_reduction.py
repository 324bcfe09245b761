from typing import Annotated

from pydantic import Field

from leakgauge import Reduction


class Stride(Reduction):
    """Keeps every n-th patch token in the first block and drops the others.

    Args:
        every: n; 2 keeps half.
    """

    merges = False

    def __init__(self, every: Annotated[int, Field(ge=2)] = 2):
        self.every = every

    def active(self, layer, layers):
        return layer == 0

    def assign(self, state, rng):
        return state.keep(state.place % self.every == 0)
