"""Adaptive threshold merging (arXiv 2509.09955): data decides how many tokens stay."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Annotated, Self

from pydantic import Field
from torch import Tensor

from leakgauge.defenses.reductions.bipartite import OrderName, Pairs, SplitName
from leakgauge.defenses.reductions.per_layer import PerLayer
from leakgauge.defenses.reductions.similarity_merge import Cap, SimilarityMerge, SimilarityName
from leakgauge.harness.contracts.reduction import LayerState, Searched
from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.suite.options import KeptShare, PerBlock, Share

Cosine = Annotated[float, Field(ge=-1, le=1)]
NEVER = 1.0
_WAYS = ("thresholds", "share", "keep")


class ThresholdMerge(SimilarityMerge):
    """Merges every A token into its most similar B token where their cosine similarity exceeds tau.

    tau = 1 means never, also for identical keys, whose computed similarity may be just below or above one.

    The same tau keeps another share of the tokens on every model and kind of image. State a ``share`` or what to
    ``keep`` instead, and tau is calibrated for each block on up to 128 images of the calibration split, in the number
    type and with the options of the operating point. Give exactly one of the three. run.json holds the thresholds that
    were found, under ``operating_points``; any image keeps what its own tokens decide, more or less than the mean.

    Args:
        thresholds: One tau in [-1, 1] for all edge blocks, or a list with one for each.
        share: Share in [0, 1] of the A-to-B matches of all calibration images together that merges in each edge block,
            or a list with one for each block. At most so many merge: equal similarities do together or not at all,
            and the cap may hold some back.
        keep: Mean share in (0, 1] of an image's tokens, protected ones included, that is left after the last edge
            block, met to a tenth of a token where similarities allow. Found by bisection over one ``share`` for all
            blocks.
        similarity: Compare mean-over-heads ``keys`` (assumed) or the ``tokens`` after attention.
        split: ``alternating`` A/B (assumed), or mutual nearest tokens among ``all_pairs``.
        order: ``kept`` keeps the token order (assumed); ``tome`` puts A tokens that stay before B tokens.
        cap: Largest share of an image's patch tokens merged away in one block (assumed half).

    Raises:
        ConfigError: A number is out of range or none, or not exactly one of the three is given.
    """

    name = "threshold"
    searched = Searched("thresholds", calibrated=True)

    def __init__(
        self,
        thresholds: PerBlock[Cosine] | None = None,
        similarity: SimilarityName = "keys",
        split: SplitName = "alternating",
        order: OrderName = "kept",
        cap: Cap = 0.5,
        share: PerBlock[Share] | None = None,
        keep: KeptShare | None = None,
    ) -> None:
        super().__init__(similarity, split, order, cap)
        given = [name for name, value in zip(_WAYS, (thresholds, share, keep), strict=True) if value is not None]
        if len(given) != 1:
            raise ConfigError(
                f"{' and '.join(given) if given else 'none'} of thresholds, share and keep is given, wanted is one",
                hint="give `share: 0.25`, `keep: 0.4` or `thresholds: 0.9`",
            )
        self.keep = keep
        self._share = None if share is None else PerLayer("share", share)
        self._tau = None if thresholds is None else PerLayer("thresholds", thresholds)

    def check(self, layers: int) -> None:
        """Raises ConfigError where a list does not have one number for each of ``layers`` edge blocks."""
        for values in (self._tau, self._share):
            if values is not None:
                values.check(layers, self.name)

    @property
    def calibrated(self) -> bool:
        """Whether the thresholds are known; where not, ``at`` gives them."""
        return self._tau is not None

    def shares(self, layers: int) -> list[float] | None:
        """Returns the share of the matches to merge in each of ``layers`` edge blocks; None where none is stated."""
        return None if self._share is None else [self._share[layer] for layer in range(layers)]

    def at(self, thresholds: Sequence[float]) -> Self:
        """Returns the same reduction with these thresholds, one for each edge block."""
        found = copy(self)
        found._tau = PerLayer("thresholds", thresholds)
        return found

    def _threshold(self, layer: int) -> float:
        if self._tau is None:
            raise PluginError(
                "thresholds are not calibrated yet",
                where=f"reduction {self.name!r}",
                hint="call prepare() of the defense with calibration images first",
            )
        return self._tau[layer]

    def active(self, layer: int, layers: int) -> bool:
        """Returns whether tau of the block lets anything merge."""
        return self._threshold(layer) < NEVER

    def select(self, pairs: Pairs, state: LayerState) -> Tensor:
        """Selects the pairs above tau."""
        tau = self._threshold(state.layer)
        return pairs.similarity > tau if tau < NEVER else pairs.similarity.new_zeros(len(pairs.source)).bool()
