"""Matching tokens by similarity, and building the assignment that merges the pairs chosen (ToMe, section 3.2)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from leakgauge.harness.values.tokens import offsets_of

SplitName = Literal["alternating", "all_pairs"]
OrderName = Literal["kept", "tome"]

_PAD = 4
"""Least rows of a padded product: smaller ones are computed by another kernel, whose last bits differ, and an image's
result would depend on its batch mates."""


class Split(NamedTuple):
    """Packed rows of sets A and B; within an image, patches alternate A, B, A, B, ... in token order."""

    a_rows: Tensor
    b_rows: Tensor


class Pairs(NamedTuple):
    """Candidate merges of P tokens: packed rows ``source`` and ``target``, ``similarity`` and ``image``, each (P,).

    Sources stand in packed order; no token is both source and target.
    """

    source: Tensor
    target: Tensor
    similarity: Tensor
    image: Tensor


def alternating(length: int, prefix: int, device: torch.device | None = None) -> Split:
    """Returns the split of one image of ``length`` tokens, as row numbers within the image."""
    patches = torch.arange(prefix, length, device=device)
    return Split(patches[::2], patches[1::2])


def best_pairs(features: Tensor, lengths: Tensor, prefix: int, split: SplitName = "alternating") -> Pairs:
    """Matches tokens with their most similar partner; ties take the first partner.

    Args:
        features: (T, K) float32 unit vectors, packed.
        lengths: (B,) tokens an image.
        prefix: Protected tokens at the start of every image, which take no part.
        split: ``alternating`` matches every A token to its most similar B token; ``all_pairs`` joins tokens that are
            each other's most similar token among all, the later into the earlier.
    """
    starts = offsets_of(lengths)[:-1] + prefix
    patches = lengths - prefix
    if split == "alternating":
        a, b = _Side.of(starts, (patches + 1) // 2, 0, 2), _Side.of(starts, patches // 2, 1, 2)
        best, match = _similarity(features, a, b).max(dim=2)
        paired = a.real & (b.number > 0)[:, None]
    else:
        a = b = _Side.of(starts, patches, 0, 1)
        similarity = _similarity(features, a, b)
        similarity.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        best, match = similarity.max(dim=2)
        place = torch.arange(match.shape[1], device=match.device)
        mutual = match.gather(1, match) == place
        paired = a.real & mutual & (match < place) & (a.number > 1)[:, None]
    found = paired.flatten().nonzero().squeeze(1)
    image = torch.div(found, paired.shape[1], rounding_mode="floor")
    target = b.rows.gather(1, match).flatten()[found]
    return Pairs(a.rows.flatten()[found], target, best.flatten()[found], image)


class _Side(NamedTuple):
    """One side of the matching, padded: packed ``rows`` (B, L), which of them are ``real`` (B, L), ``number`` (B,)."""

    rows: Tensor
    real: Tensor
    number: Tensor

    @classmethod
    def of(cls, starts: Tensor, number: Tensor, first: int, step: int) -> _Side:
        width = max(_PAD, int(number.max()) if len(number) else 0)
        place = torch.arange(width, device=starts.device)
        real = place < number[:, None]
        rows = starts[:, None] + first + step * place
        return cls(torch.where(real, rows, 0), real, number)


def _similarity(features: Tensor, a: _Side, b: _Side) -> Tensor:
    """Returns cosine similarities (B, La, Lb), minus infinity where B is padding."""
    left, right = (features.index_select(0, side.rows.flatten()).view(*side.rows.shape, -1) for side in (a, b))
    similarity = torch.bmm(left, right.transpose(1, 2))
    if bool(b.real.all()):
        return similarity
    return similarity.masked_fill(~b.real[:, None, :], -torch.inf)


def rank_in_image(scores: Tensor, image: Tensor) -> Tensor:
    """Returns (P,) for each entry how many of its image's entries score higher; ties rank the first one first.

    Args:
        scores: (P,) to rank, highest first.
        image: (P,) image of each entry, ascending.
    """
    counts = torch.bincount(image)
    place = torch.arange(len(image), device=image.device) - torch.repeat_interleave(offsets_of(counts)[:-1], counts)
    padded = scores.new_full((len(counts), int(counts.max()) if len(counts) else 0), -torch.inf)
    padded[image, place] = scores
    order = padded.argsort(dim=1, descending=True, stable=True)
    ranks = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, ranks)[image, place]


def tome_order(lengths: Tensor, prefix: int) -> Tensor:
    """Returns the (T,) groups that make ``move_rows`` put the A tokens that stay before the B tokens, as ToMe."""
    images = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    place = torch.arange(len(images), device=lengths.device) - offsets_of(lengths)[images] - prefix
    return torch.where(place < 0, 0, 1 + place % 2)


def image_start(lengths: Tensor) -> list[int]:
    """Returns the first packed row of every image."""
    return [int(x) for x in offsets_of(lengths)[:-1]]
