"""The contract of token reductions: what they see in a block, and the assignment that they return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import DROPPED, offsets_of

Feature = Literal["attention", "significance", "value_norm"]


@dataclass(frozen=True)
class LayerState:
    """What a reduction may look at in one block, after its attention and before its MLP.

    Tokens are packed: T rows, image after image, B images (see TokenBatch).

    Args:
        keys: (T, K) float32 unit-norm keys, mean over heads (ToMe, section 3.2).
        sizes: (T,) int64 source patches a token.
        attention: (T,) float32 attention of this block that the class token pays to each token, mean over heads, each
            image summing to 1; where the model has no class token, the mean over all tokens that pay. None unless the
            reduction ``needs`` it.
        lengths: (B,) int64 tokens an image.
        prefix: Protected tokens at the start of every image.
        layer: Block number, from 0.
        ids: B image identifiers, by which random reductions address their streams.
        layers: Blocks on the edge, in each of which the reduction is called.
        depth: Blocks of the whole model.
        target_lengths: (B,) lengths that a matched control must reach in this layer, or None.
        tokens: (T, D) values after the attention's residual; None only where no reduction that reads them runs.
        significance: (T,) float32 class attention times the norm of the value, summed over heads (ATS, eq. 4, before
            its normalisation). None unless the reduction ``needs`` it.
        value_norm: (T,) float32 norm of the value over all heads together. None unless the reduction ``needs`` it.
    """

    keys: Tensor
    sizes: Tensor
    attention: Tensor | None
    lengths: Tensor
    prefix: int
    layer: int
    ids: tuple[str, ...]
    layers: int
    depth: int
    target_lengths: Tensor | None = None
    tokens: Tensor | None = None
    significance: Tensor | None = None
    value_norm: Tensor | None = None

    @property
    def place(self) -> Tensor:
        """(T,) int64 place of each token among the patch tokens of its image, from 0; below 0 for protected tokens."""
        first = torch.repeat_interleave(offsets_of(self.lengths)[:-1], self.lengths)
        return torch.arange(len(first), device=first.device) - first - self.prefix

    def keep(self, wanted: Tensor) -> Assignment | None:
        """Returns the assignment that drops the patch tokens where ``wanted`` (T,) bool is False."""
        return Assignment.keeping(self.lengths, wanted | (self.place < 0))


class Assignment(NamedTuple):
    """Where each old token goes, and how those that meet are combined.

    Attributes:
        destination: (T,) int64 packed row of the new token, or ``DROPPED``.
        lengths: (B,) int64 new tokens of each image.
        weights: (T,) coefficient of each old token in its new one; None: its size over their total size, the
            size-weighted mean.
        rescale: Scale each new token to the largest norm among its sources (ToFu's MLERP).
        mass: (T,) share of its weight in proportional attention, in [0, 1], that each old token brings along
            (DiffRate); None: all of it, so that the weight is the size.
    """

    destination: Tensor
    lengths: Tensor
    weights: Tensor | None = None
    rescale: bool = False
    mass: Tensor | None = None

    @classmethod
    def keeping(cls, lengths: Tensor, keep: Tensor) -> Assignment | None:
        """Keeps the rows where ``keep`` (T,) bool is True, in order, and drops the rest; None where all are kept.

        Args:
            lengths: (B,) tokens an image.
            keep: Which rows stay.
        """
        if bool(keep.all()):
            return None
        so_far = torch.cat([lengths.new_zeros(1), keep.long().cumsum(0)])
        return cls(torch.where(keep, so_far[1:] - 1, DROPPED), so_far[offsets_of(lengths)].diff())


class Searched(NamedTuple):
    """How a search sets a reduction: through the option that takes a number for each edge block.

    Args:
        option: Its name.
        calibrated: Whether the numbers are thresholds that shares of the matches are turned into, on calibration
            images; else they are shares of the matches, in [0, 1].
    """

    option: str
    calibrated: bool


class Reduction(ABC):
    """Merges or drops tokens between attention and MLP of a block. Pure: it knows no model and keeps no state.

    What becomes of an image depends on that image alone, never on its batch mates. Protected tokens keep their places.
    """

    name: ClassVar[str]
    needs: frozenset[Feature] = frozenset()
    """Features of the LayerState beyond keys and tokens that this reduction reads; they cost time."""
    proportional: bool = True
    """Whether the method was published with proportional attention, the default of a pipeline that runs it."""
    merges: bool = True
    """Whether tokens may come to stand for several patches; where not, no sizes need to be sent."""
    match: Reduction | None = None
    """The reduction whose token counts this one must reach per image and layer, for controls at matched cost."""
    searched: ClassVar[Searched | None] = None
    """How a search sets it; None: it cannot be searched."""

    @abstractmethod
    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Returns the assignment for one block, or None to leave all tokens as they are."""

    def active(self, layer: int, layers: int) -> bool:
        """Returns whether the reduction may do anything in block ``layer`` of an edge of ``layers`` blocks.

        Where it may not, nothing is computed for it.
        """
        return True

    def check(self, layers: int) -> None:  # noqa: B027 - optional to override
        """Raises ConfigError where the options cannot serve an edge of ``layers`` blocks."""
