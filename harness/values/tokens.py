"""TokenBatch: ragged tokens of several images, packed without padding, with sizes and the merge map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.harness.errors import PayloadError

DROPPED = -1


def offsets_of(lengths: Tensor) -> Tensor:
    """Returns (B + 1,) int64 start offsets of packed images from their (B,) lengths."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def packed_rows(lengths: Tensor, index: Tensor) -> Tensor:
    """Returns the packed row numbers of the images at ``index``, in that order.

    Args:
        lengths: (B,) tokens an image.
        index: (K,) images wanted.
    """
    starts, wanted = offsets_of(lengths)[index], lengths[index]
    within = torch.arange(int(wanted.sum()), device=lengths.device) - torch.repeat_interleave(
        offsets_of(wanted)[:-1], wanted
    )
    return torch.repeat_interleave(starts, wanted) + within


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of B images, image after image.

    Args:
        tokens: (T, D) float; T is the sum of ``lengths``.
        lengths: (B,) int64 tokens an image, protected prefix included.
        sizes: (T,) int64, source patches that a token stands for; 1 for protected tokens.
        merge_map: (B, N) int64, for each source patch the index of its token within its image (prefix included), or
            ``DROPPED``.
        prefix: Protected tokens (class, registers) at the start of every image; never merged or dropped.
        mass: (T,) float, what each token weighs in proportional attention where a reduction says so; None: its size.
            It stays on the edge: a payload carries sizes.
    """

    tokens: Tensor
    lengths: Tensor
    sizes: Tensor
    merge_map: Tensor
    prefix: int
    mass: Tensor | None = None

    @classmethod
    def from_uniform(cls, tokens: Tensor, prefix: int) -> TokenBatch:
        """Packs unreduced tokens (B, prefix + N, D), one patch a token."""
        batch, length, width = tokens.shape
        device = tokens.device
        return cls(
            tokens=tokens.reshape(batch * length, width),
            lengths=torch.full((batch,), length, device=device),
            sizes=torch.ones(batch * length, dtype=torch.long, device=device),
            merge_map=torch.arange(prefix, length, device=device).expand(batch, -1),
            prefix=prefix,
        )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def offsets(self) -> Tensor:
        """(B + 1,) int64 row at which each image starts."""
        return offsets_of(self.lengths)

    @property
    def image_index(self) -> Tensor:
        """(T,) int64 image that each row belongs to."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.lengths.device), self.lengths)

    @property
    def masses(self) -> Tensor:
        """(T,) what each token weighs in proportional attention: ``mass``, or where there is none its size."""
        return self.sizes.float() if self.mass is None else self.mass

    def padded(self, length: int | None = None) -> tuple[Tensor, Tensor]:
        """Returns zero-padded tokens (B, L, D) and the mask (B, L) that is True where a token is real."""
        width = int(self.lengths.max()) if length is None else length
        mask = torch.arange(width, device=self.lengths.device) < self.lengths[:, None]
        tokens = self.tokens.new_zeros(len(self), width, self.tokens.shape[1])
        tokens[mask] = self.tokens
        return tokens, mask

    def unmerge(self) -> Tensor:
        """Copies every token to all its source patches: (B, N, D), zeros where a patch was dropped."""
        rows = self.offsets[:-1, None] + self.merge_map.clamp_min(0)
        return self.tokens[rows] * (self.merge_map != DROPPED)[..., None]

    def select(self, index: Sequence[int] | Tensor) -> TokenBatch:
        """Returns the images at ``index``, in that order."""
        images = torch.as_tensor(index, dtype=torch.long, device=self.lengths.device)
        rows = packed_rows(self.lengths, images)
        return TokenBatch(
            self.tokens[rows],
            self.lengths[images],
            self.sizes[rows],
            self.merge_map[images],
            self.prefix,
            None if self.mass is None else self.mass[rows],
        )

    def with_tokens(self, tokens: Tensor) -> TokenBatch:
        """Returns the same layout with other token values (T, any width)."""
        return TokenBatch(tokens, self.lengths, self.sizes, self.merge_map, self.prefix, self.mass)

    def to(self, device: torch.device | str) -> TokenBatch:
        """Returns the batch on ``device``."""
        return TokenBatch(
            self.tokens.to(device),
            self.lengths.to(device),
            self.sizes.to(device),
            self.merge_map.to(device),
            self.prefix,
            None if self.mass is None else self.mass.to(device),
        )

    @staticmethod
    def concatenate(batches: Sequence[TokenBatch]) -> TokenBatch:
        """Joins batches of one model, image after image."""
        return TokenBatch(
            torch.cat([b.tokens for b in batches]),
            torch.cat([b.lengths for b in batches]),
            torch.cat([b.sizes for b in batches]),
            torch.cat([b.merge_map for b in batches]),
            batches[0].prefix,
            None if all(b.mass is None for b in batches) else torch.cat([b.masses for b in batches]),
        )

    def check(self) -> None:
        """Checks the invariants that every reduction must keep.

        Raises:
            PayloadError: A value is not finite, or lengths, sizes and merge map contradict one another.
        """
        if not bool(torch.isfinite(self.tokens).all()):
            bad = int((~torch.isfinite(self.tokens)).any(dim=1).sum())
            raise PayloadError(
                f"{bad} of {len(self.tokens)} tokens hold NaN or infinite values", hint="check weights and input images"
            )
        if int(self.lengths.sum()) != len(self.tokens) or len(self.sizes) != len(self.tokens):
            raise PayloadError("token lengths do not add up to the packed rows")
        kept = self.merge_map != DROPPED
        inside = (self.merge_map >= self.prefix) & (self.merge_map < self.lengths[:, None])
        if bool((kept & ~inside).any()):
            raise PayloadError("the merge map points outside its image")
        rows = (self.offsets[:-1, None] + self.merge_map)[kept]
        counted = torch.bincount(rows, minlength=len(self.tokens))
        is_prefix = torch.arange(len(self.tokens), device=rows.device) - self.offsets[self.image_index] < self.prefix
        if bool((counted[~is_prefix] != self.sizes[~is_prefix]).any()):
            raise PayloadError("token sizes disagree with the merge map")
