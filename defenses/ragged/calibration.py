"""Thresholds that merge a wanted share of the matches or keep a wanted share of the tokens, by given images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leakgauge.defenses.backbones.backbone import Backbone
from leakgauge.defenses.ragged.forward import run_edge
from leakgauge.defenses.reductions.bipartite import OrderName, Pairs, SplitName
from leakgauge.defenses.reductions.similarity_merge import SimilarityMerge, SimilarityName
from leakgauge.defenses.reductions.threshold import NEVER, ThresholdMerge
from leakgauge.harness.contracts.reduction import LayerState, Reduction
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

KEPT_TO_TOKENS = 0.1
"""How near, in tokens an image, the mean that is kept comes to the one that is wanted."""
BISECTIONS = 20


class Calibrated(NamedTuple):
    """Thresholds that were found on calibration images, one for each edge block.

    Attributes:
        thresholds: tau of each block.
        shares: The share of the matches, in [0, 1], that each was to let merge.
        kept: Mean share in (0, 1] of the tokens of a calibration image that is left after the last block.
        images: Images that they were found on; tiles count as such.
    """

    thresholds: tuple[float, ...]
    shares: tuple[float, ...]
    kept: float
    images: int

    def to_json(self) -> dict[str, Any]:
        """Returns it as run.json states it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._asdict().items()}


def wish_of(reduction: Reduction) -> ThresholdMerge | None:
    """Returns the reduction, or that which a control is matched to, where its thresholds are left to calibration."""
    inner = reduction if reduction.match is None else reduction.match
    return inner if isinstance(inner, ThresholdMerge) and not inner.calibrated else None


def calibrated(
    stated: Reduction, backbone: Backbone, batch: TokenBatch, cut: int, *, proportional: bool
) -> tuple[Reduction, dict[str, Any]]:
    """Returns a reduction whose wish has become thresholds, and what run.json says of them; arguments as below."""
    wish = wish_of(stated)
    if wish is None:
        return stated, {}
    found = calibrate(wish, backbone, batch, cut, proportional=proportional)
    reduction: Reduction = wish.at(found.thresholds)
    if wish is not stated:
        control = copy(stated)
        control.match = reduction
        reduction = control
    return reduction, found.to_json()


def calibrate(
    wish: ThresholdMerge, backbone: Backbone, batch: TokenBatch, cut: int, *, proportional: bool
) -> Calibrated:
    """Finds the thresholds that a suite leaves to calibration by a share or by what to keep.

    Args:
        wish: What the suite states.
        backbone: The model.
        batch: Embedded calibration images.
        cut: Edge blocks.
        proportional: Proportional attention.

    Raises:
        ConfigError: So few tokens as are to be kept cannot be reached.
    """

    def at(shares: Sequence[float]) -> Calibrated:
        found, counts = _calibrate(backbone, batch, shares, proportional=proportional, **wish.matching())
        kept = float(counts[:, -1].double().sum() / batch.lengths.double().sum())
        return Calibrated(tuple(found), tuple(map(float, shares)), kept, len(batch))

    shares = wish.shares(cut)
    if shares is not None:
        return at(shares)
    assert wish.keep is not None
    tokens = float(batch.lengths.double().mean())
    return that_keeps(wish.keep, KEPT_TO_TOKENS / tokens, lambda share: at([share] * cut))


def that_keeps(keep: float, tolerance: float, at: Callable[[float], Calibrated]) -> Calibrated:
    """Finds by bisection the share of the matches at which ``keep`` of the tokens are kept, or next to it.

    Args:
        keep: Share of the tokens, in (0, 1].
        tolerance: Difference from it that is near enough.
        at: Returns what one share in [0, 1] for all blocks leads to; the more merges, the less is kept.

    Raises:
        ConfigError: Even if all matches merge, more is kept.
    """
    best = at(1.0)
    if best.kept > keep + tolerance:
        raise ConfigError(
            f"keep = {keep:g} cannot be reached: {best.kept:.3f} of the tokens stay where all matches merge",
            where="reduction 'threshold'",
            hint="keep more, or let more edge blocks merge (`cut`, `cap`)",
        )
    low, high = 0.0, 1.0
    if keep >= 1 - tolerance:
        return at(low)
    for _ in range(BISECTIONS):
        if abs(best.kept - keep) <= tolerance:
            break
        middle = (low + high) / 2
        found = at(middle)
        best = min(best, found, key=lambda one: abs(one.kept - keep))
        low, high = (middle, high) if found.kept > keep else (low, middle)
    return best


def calibrate_thresholds(
    backbone: Backbone,
    batch: TokenBatch,
    shares: Sequence[float],
    *,
    proportional: bool = True,
    similarity: SimilarityName = "keys",
    split: SplitName = "alternating",
    order: OrderName = "kept",
    cap: float = 0.5,
) -> list[float]:
    """Finds for each block a tau that lets ``shares`` of the matches of all images together merge.

    The similarities of one block range from .83 to .99 where another's are all above .98, so that one tau for all
    blocks, or a search over raw tau, is a poor choice; shares are comparable between blocks and models. Thresholds
    hold for the number type in which they were calibrated.

    Args:
        backbone: The model.
        batch: Embedded images; pin their list, thresholds depend on it.
        shares: One share in [0, 1] for each edge block; 0 never merges.
        proportional: Proportional attention.
        similarity: As in ThresholdMerge.
        split: As in ThresholdMerge.
        order: As in ThresholdMerge.
        cap: As in ThresholdMerge.

    Returns:
        One tau for each of ``shares``.

    Raises:
        ConfigError: A share is out of range, or there are more of them than blocks.
    """
    if len(shares) > backbone.depth or not all(0 <= share <= 1 for share in shares):
        raise ConfigError(
            f"shares {list(shares)!r} are not in [0, 1], at most {backbone.depth} of them", hint="give one a block"
        )
    matching: dict[str, Any] = {"similarity": similarity, "split": split, "order": order, "cap": cap}
    return _calibrate(backbone, batch, shares, proportional=proportional, **matching)[0]


@torch.no_grad()
def _calibrate(
    backbone: Backbone, batch: TokenBatch, shares: Sequence[float], *, proportional: bool, **matching: Any
) -> tuple[list[float], Tensor]:
    """Returns tau of each block, and the (B, blocks) token counts after each."""
    calibrating = _Calibrating(shares, **matching)
    ids = tuple(str(i) for i in range(len(batch)))
    _, counts = run_edge(backbone, batch, ids, calibrating, Streams(0), cut=len(shares), proportional=proportional)
    return calibrating.found, counts


class _Calibrating(SimilarityMerge):
    """Merges the wanted share of the matches of all images together, and notes the tau that does so.

    No defense: here images of a batch do depend on one another.
    """

    name = "calibrating"

    def __init__(
        self, shares: Sequence[float], similarity: SimilarityName, split: SplitName, order: OrderName, cap: float
    ) -> None:
        super().__init__(similarity, split, order, cap)
        self._shares, self.found = shares, [NEVER] * len(shares)

    def select(self, pairs: Pairs, state: LayerState) -> Tensor:
        """Selects the pairs above the block's tau."""
        tau = threshold_for_share(pairs.similarity, self._shares[state.layer])
        self.found[state.layer] = tau
        return pairs.similarity > tau if tau < NEVER else torch.zeros_like(pairs.similarity, dtype=torch.bool)


def threshold_for_share(similarity: Tensor, share: float) -> float:
    """Returns a tau that at most ``share`` of the similarities (P,) float32 exceed; NEVER for none.

    It lies half-way between the least similar pair that merges and the next one, so that neither sits on the edge: in
    another number type, or with other last bits, the same pairs merge. Equal similarities merge together or not at
    all.
    """
    merges = int(share * len(similarity) + 1e-9)
    if merges == 0:
        return NEVER
    ordered = similarity.float().sort(descending=True).values
    if merges == len(ordered):
        return -1.0
    below = ordered[merges]
    merging = int((ordered > below).sum())
    if not merging:
        return NEVER
    above = ordered[merging - 1]
    middle = ((above.double() + below.double()) / 2).float()
    # Neighbouring floats have none between them, and from NEVER on nothing merges: what merges exceeds the lower one.
    tau = float(middle if middle < above and middle < NEVER else below)
    return max(-1.0, min(tau, NEVER))
