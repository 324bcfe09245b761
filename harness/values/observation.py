"""Observation: what an attacker sees of a batch of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from leakgauge.harness.values.tokens import DROPPED, TokenBatch


@dataclass(frozen=True)
class Observation:
    """What the attacker sees of B images. A field that the threat model withholds is None.

    Args:
        tokens: (T, D) float32, packed.
        lengths: (B,) tokens an image.
        prefix: Protected tokens at the start of every image (0 where the order is withheld).
        grid: Patch rows and columns.
        sizes: (T,) int64 source patches a token.
        merge_map: (B, N) int64, as in TokenBatch.
        noise_std: (B,) the channel realisation's noise.
        ordered: Whether tokens come in the order that the edge sent them.
        output: (B, classes) the server half's answer to the images under attack, for observers who can query the
            victim; None for the attacker's own images, on which ``AttackerView.predict`` answers.
    """

    tokens: Tensor
    lengths: Tensor
    prefix: int
    grid: tuple[int, int]
    sizes: Tensor | None = None
    merge_map: Tensor | None = None
    noise_std: Tensor | None = None
    ordered: bool = True
    output: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def as_batch(self) -> TokenBatch:
        """Returns the tokens as a TokenBatch; withheld sizes are 1 and a withheld merge map is all dropped."""
        patches = self.grid[0] * self.grid[1]
        sizes = torch.ones(len(self.tokens), dtype=torch.long, device=self.tokens.device)
        hidden = torch.full((len(self), patches), DROPPED, device=self.tokens.device)
        return TokenBatch(
            self.tokens,
            self.lengths,
            sizes if self.sizes is None else self.sizes,
            hidden if self.merge_map is None else self.merge_map,
            self.prefix,
        )

    def clone(self) -> Observation:
        """Returns the observation on memory of its own, which may be written into."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in held.items():
            if isinstance(value, Tensor):
                held[name] = value.clone()
        return Observation(**held)

    def select(self, index: Sequence[int] | Tensor) -> Observation:
        """Returns the images at ``index``, in that order."""
        images = torch.as_tensor(index, dtype=torch.long, device=self.lengths.device)
        batch = self.as_batch().select(images)
        return Observation(
            tokens=batch.tokens,
            lengths=batch.lengths,
            prefix=self.prefix,
            grid=self.grid,
            sizes=None if self.sizes is None else batch.sizes,
            merge_map=None if self.merge_map is None else batch.merge_map,
            noise_std=None if self.noise_std is None else self.noise_std[images],
            ordered=self.ordered,
            output=None if self.output is None else self.output[images],
        )
