"""LLaVA-PruMerge: outliers of the class attention stay, all else merges into them (Shang et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.defenses.reductions.assignments import move_rows
from leakgauge.defenses.reductions.patches import nearest, patch_spans
from leakgauge.harness.contracts.reduction import Assignment, LayerState, Reduction
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.options import NotNegative
from leakgauge.harness.values.seeding import Streams

UNIFORM_STEP = 5
UNIFORM_FIRST = 2


def outliers(attention: Tensor) -> Tensor:
    """Returns (P,) True where attention exceeds Q3 + 1.5 (Q3 - Q1), with linearly interpolated quartiles."""
    values = attention.double()
    q1, q3 = torch.quantile(values, torch.tensor([0.25, 0.75], dtype=values.dtype, device=values.device))
    found: Tensor = values > q3 + 1.5 * (q3 - q1)
    return found


class PruMerge(Reduction):
    """Keeps the patch tokens whose class attention is an outlier of their image; every other merges into one of them.

    The outlier rule sets the count, image by image (the paper's adaptive important token selection). Each other patch
    joins the kept token with the most similar key, and a cluster becomes the mean weighted by class attention (its
    token supplement). The published code differs here: it lets kept tokens share their k nearest neighbours, which no
    merge map could tell; this is a partition. An image without outliers keeps all its tokens (assumed), and kept tokens
    keep their order.

    Args:
        layer: Block number from 0 in which it acts; None takes the last on the edge (the paper takes the penultimate
            block of CLIP, whose output its language model reads).
        plus: Keep spatially uniform samples too (PruMerge+): every fifth patch token in raster order, a
            fifth of all (assumed: with the outliers about the quarter that the paper reports).

    Raises:
        ConfigError: An option is out of range.
    """

    name = "prumerge"
    needs = frozenset({"attention"})
    proportional = False  # published before a language model, which knows no sizes

    def __init__(self, layer: NotNegative | None = None, plus: bool = False) -> None:
        self._layer, self._plus = layer, plus

    def check(self, layers: int) -> None:
        """Raises ConfigError where the block is not among ``layers`` edge blocks."""
        if self._layer is not None and self._layer >= layers:
            raise ConfigError(
                f"layer = {self._layer}, but the edge has {layers} blocks",
                where=f"reduction {self.name!r}",
                hint=f"give a block number from 0 to {layers - 1}",
            )

    def active(self, layer: int, layers: int) -> bool:
        """Returns whether the block is the one that it acts in."""
        return layer == (layers - 1 if self._layer is None else self._layer)

    def assign(self, state: LayerState, rng: Streams) -> Assignment | None:
        """Merges all but the outliers into them."""
        if not self.active(state.layer, state.layers):
            return None
        assert state.attention is not None
        target = torch.arange(len(state.keys), device=state.keys.device)
        weights = torch.ones(len(target), dtype=torch.float64, device=target.device)
        for start, end in patch_spans(state.lengths, state.prefix):
            if start == end:
                continue
            attention = state.attention[start:end].double()
            kept = outliers(attention)
            if not bool(kept.any()):
                continue
            if self._plus:
                kept[UNIFORM_FIRST::UNIFORM_STEP] = True
            anchors, rest = kept.nonzero().squeeze(1), (~kept).nonzero().squeeze(1)
            own = torch.arange(end - start, device=target.device)
            own[rest] = nearest(state.keys[start:end], rest, anchors)
            target[start:end] = start + own
            total = torch.zeros_like(attention).index_add_(0, own, attention)[own]
            count = torch.bincount(own, minlength=len(own))[own]
            # A cluster without attention, as a uniform sample may have, is a plain mean.
            weights[start:end] = torch.where(total > 0, attention / total, 1 / count.double())
        moved = move_rows(state.lengths, target)
        return None if moved is None else moved._replace(weights=weights)
