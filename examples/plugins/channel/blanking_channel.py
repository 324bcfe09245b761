import torch

from leakgauge import PerImageChannel
from leakgauge.harness.suite.options import Share


class Blanking(PerImageChannel):
    """Sets each token value to zero with a probability of its own: a receiver that drops out.

    Args:
        p: That probability.
    """

    def __init__(self, p: Share = 0.1):
        self.p = p

    def disturb(self, tokens, rng):
        return tokens * (torch.rand(tokens.shape, generator=rng.torch()) >= self.p)
