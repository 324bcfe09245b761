"""What the reductions that decide image by image share: patch rows, similarity, and the assignment from targets.

Every decision is computed on the rows of one image, in an order and precision that its batch mates cannot change.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from leakgauge.harness.values.tokens import offsets_of


def patch_spans(lengths: Tensor, prefix: int) -> Iterator[tuple[int, int]]:
    """Yields the first packed row and the end of every image's patch tokens."""
    for start, end in pairwise(offsets_of(lengths).tolist()):
        yield start + prefix, end


def similarity(one: Tensor, other: Tensor) -> Tensor:
    """Returns cosine similarities (P, Q) float32 of unit vectors (P, K) and (Q, K).

    Computed in float64: rounded to float32, equal vectors have equal similarities, whichever kernel computed them.
    """
    return (one.double() @ other.double().T).float()


def by_score(scores: Tensor) -> Tensor:
    """Returns the (P,) places of ``scores``, highest first; ties take the first."""
    return torch.argsort(scores, descending=True, stable=True)


def nearest(keys: Tensor, sources: Tensor, anchors: Tensor) -> Tensor:
    """Returns for each of ``sources`` the one of ``anchors`` with the most similar key; ties take the first anchor.

    Args:
        keys: (T, K) unit vectors.
        sources: (P,) rows.
        anchors: (Q,) rows, at least one.
    """
    return anchors[similarity(keys[sources], keys[anchors]).argmax(dim=1)]


def closeness(features: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
    """Returns the (P,) float32 cosine similarity of each of the rows ``sources`` (P,) with its own of ``targets`` (P,).

    Args:
        features: (T, K) unit vectors.
        sources: Rows.
        targets: Rows.
    """
    return (features[sources].double() * features[targets].double()).sum(dim=1).float()
