"""What the random controls share: a reference reduction whose token counts they match per image and block."""

from __future__ import annotations

from typing import Annotated

from leakgauge.harness.contracts.reduction import LayerState, Reduction
from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.suite.options import NestedPlugin, Spec
from leakgauge.harness.suite.registry import create, name_and_options


class MatchedReduction(Reduction):
    """A control that ends every block with as many tokens of each image as its reference does.

    The reference runs beside the defense to supply the counts; its cost is the experimenter's and is not counted.

    Args:
        match: The reference reduction, ``{name: ..., options}``.

    Raises:
        ConfigError: The reference is missing, unknown or refuses its options.
    """

    def __init__(self, match: Annotated[Spec, NestedPlugin("reductions")]) -> None:
        where = f"reduction {self.name!r}: match"
        name, options = name_and_options("reductions", match, where)
        reference: Reduction = create("reductions", name, options, where=where)
        if reference.match is not None:
            raise ConfigError(f"{name!r} is itself matched to another", hint="match a reduction of its own right")
        self.match = reference
        # A control differs from its reference in what it removes, and in nothing else.
        self.proportional = reference.proportional

    def check(self, layers: int) -> None:
        """Checks the reference's options."""
        if self.match is not None:
            self.match.check(layers)

    def surplus(self, state: LayerState) -> list[tuple[int, int]]:
        """Returns for each image its number of tokens and how many of them must go in this block.

        Raises:
            PluginError: No targets were supplied, or they grow.
        """
        if state.target_lengths is None:
            raise PluginError(f"{self.name} needs target lengths", hint="run it inside a defense that supplies them")
        found = []
        for length, wanted in zip(state.lengths.tolist(), state.target_lengths.tolist(), strict=True):
            if not state.prefix <= wanted <= length:
                raise PluginError(f"cannot reduce {length} tokens to {wanted}")
            found.append((length, length - wanted))
        return found
