"""Identification: can a reconstruction be told apart from a gallery of other images?

Pixel fidelity is not privacy. A blurred face may score badly in dB and still name its owner.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

TIE = 1e-12
"""Difference of cosines, or of scores over their magnitude, below which two images tie: float64 rounding, no more."""

_ROWS = 1024  # rows of the similarity matrix held at once


def reid_top1(reconstruction_features: Tensor, gallery_features: Tensor) -> Tensor:
    """Says for each reconstruction whether its nearest gallery image, by cosine similarity, is its own original.

    A tie does not count: an attacker who cannot tell two images apart has not identified one. By chance 1 in B hit.

    Args:
        reconstruction_features: (B, D) features of the reconstructions.
        gallery_features: (B, D) features of the originals, from the same network; row i belongs to reconstruction i.

    Returns:
        (B,) float32: 1 identified, 0 not, on the same device. NaN where either of the image's own feature rows is
        not finite or zero, or where the gallery holds no other usable image to confuse it with; unusable rows are no
        rivals to others.
    """
    if reconstruction_features.ndim != 2 or reconstruction_features.shape != gallery_features.shape:
        shapes = tuple(reconstruction_features.shape), tuple(gallery_features.shape)
        raise ValueError(f"features must both be (B, D), got {shapes[0]} and {shapes[1]}")
    # float64, so that equal gallery rows tie although the product sums them in different orders.
    queries, queries_usable = _unit_rows(reconstruction_features)
    gallery, gallery_usable = _unit_rows(gallery_features)
    count = len(queries)
    own = torch.arange(count, device=queries.device)
    hits = torch.empty(count, device=queries.device)
    for start in range(0, count, _ROWS):
        rows = own[start : start + _ROWS]
        similarity = queries[rows] @ gallery.T
        mine = similarity.gather(1, rows[:, None]).squeeze(1)
        similarity[:, ~gallery_usable] = -torch.inf
        similarity.scatter_(1, rows[:, None], -torch.inf)
        rival = similarity.amax(dim=1)
        hits[rows] = (mine > rival + TIE).float().masked_fill(rival.isinf(), torch.nan)
    return hits.masked_fill(~(queries_usable & gallery_usable), torch.nan)


def ranked_first(scores: Tensor, own: Tensor) -> Tensor:
    """Says for each observation whether its own image has the highest score of the gallery; a tie does not count.

    Args:
        scores: (B, G) finite scores.
        own: (B,) column of each one's own image.

    Returns:
        (B,) float32: 1 ranked first, 0 not; NaN where the gallery holds nothing else. Scores tie where they differ by
        no more than ``TIE`` of the larger magnitude.
    """
    rows = scores.detach().double()
    mine = rows.gather(1, own[:, None]).squeeze(1)
    rival = rows.scatter(1, own[:, None], -torch.inf).amax(dim=1)
    margin = TIE * torch.maximum(mine.abs(), rival.abs())
    return (mine - rival > margin).float().masked_fill(rival.isinf(), torch.nan)


def _unit_rows(features: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the rows at unit length in float64 (B, D), and (B,) whether each is finite and not zero."""
    rows = features.detach().double()
    usable = rows.isfinite().all(dim=1) & (rows != 0).any(dim=1)
    return functional.normalize(rows.masked_fill(~usable[:, None], 0.0), dim=1, eps=0.0), usable
