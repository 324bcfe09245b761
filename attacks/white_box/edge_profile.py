"""What a white-box attacker finds out about the edge before it looks at any observation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from leakgauge.attacks.training.closed_form import solve_ridge
from leakgauge.attacks.training.layout import from_patches, patches_of
from leakgauge.harness.contracts.attack import AttackerView
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import DROPPED

BATCH = 64
TRACED_IMAGES = 64
PENALTY = 1e-3


def made_up_images(count: int, image_shape: tuple[int, int, int], rng: Streams) -> ImageSet:
    """Draws random fields with the falling spectrum of natural images, for attackers without auxiliary images."""
    generator, (_, height, width) = rng.torch(), image_shape
    fields = torch.zeros(count, 3, height, width)
    side = 2
    while side <= min(height, width):
        noise = torch.randn(count, 3, side, side, generator=generator)
        fields += interpolate(noise, size=(height, width), mode="bilinear", align_corners=False) / side
        side *= 2
    pixels = torch.sigmoid(4.0 * fields) * 255.0
    return ImageSet.from_pixels(pixels.round().to(torch.uint8))


@dataclass(frozen=True)
class EdgeProfile:
    """The edge in numbers, learned from the attacker's own images.

    Args:
        grid: Patch rows and columns.
        image_shape: (3, H, W).
        prefix: Protected tokens of the victim, P.
        mean: (D,) of unreduced token values.
        std: (D,) likewise.
        place: (D, P + N) and (P + N,): linear map from a standardised token to its place.
        pixels: (D, 3 * h * w) and (3 * h * w,): linear map from a standardised token to the pixels of its patch.
        drops: Whether the edge drops patches, rather than merging them.
        laid_in_order: Whether a payload of P + N tokens is known to hold one a patch, in order.
    """

    grid: tuple[int, int]
    image_shape: tuple[int, int, int]
    prefix: int
    mean: Tensor
    std: Tensor
    place: tuple[Tensor, Tensor]
    pixels: tuple[Tensor, Tensor]
    drops: bool
    laid_in_order: bool

    @property
    def units(self) -> int:
        """Unreduced tokens an image, P + N."""
        return self.prefix + self.grid[0] * self.grid[1]

    @classmethod
    def learn(cls, view: AttackerView, images: ImageSet) -> EdgeProfile:
        """Runs the attacker's own images through the edge and fits closed-form maps to what comes out."""

        def tokens_of(batch: ImageSet) -> Tensor:
            with torch.no_grad():
                tokens = view.edge_tokens(batch.images().to(view.device))
            return tokens.tokens.view(len(batch), -1, tokens.tokens.shape[1])

        known = [tokens_of(batch) for batch in images.batches(BATCH)]
        flat = torch.cat(known).flatten(0, 1)
        mean, std = flat.mean(dim=0), flat.std(dim=0).clamp_min(1e-6)
        units = known[0].shape[1]
        prefix = units - view.grid[0] * view.grid[1]

        def standardised() -> Iterator[tuple[ImageSet, Tensor]]:
            for batch, tokens in zip(images.batches(BATCH), known, strict=True):
                yield batch, (tokens - mean) / std

        def places() -> Iterator[tuple[Tensor, Tensor]]:
            for batch, tokens in standardised():
                names = one_hot(torch.arange(units, device=tokens.device), units)
                yield tokens.flatten(0, 1), names.expand(len(batch), -1, -1).flatten(0, 1)

        def patches() -> Iterator[tuple[Tensor, Tensor]]:
            for batch, tokens in standardised():
                targets = patches_of(batch.images().to(tokens.device), view.grid)
                yield tokens[:, prefix:].flatten(0, 1), targets.flatten(0, 1)

        place, pixels = solve_ridge(places(), PENALTY), solve_ridge(patches(), PENALTY)
        drops, laid_in_order = cls._habits(view, images, units, prefix)
        return cls(
            view.grid,
            view.image_shape,
            prefix,
            mean,
            std,
            (place[0].float(), place[1].float()),
            (pixels[0].float(), pixels[1].float()),
            drops,
            laid_in_order,
        )

    @staticmethod
    def _habits(view: AttackerView, images: ImageSet, units: int, prefix: int) -> tuple[bool, bool]:
        """Watches where the patches of some images go: whether any are dropped, and whether full payloads are in order.

        In order must hold for every full payload seen: a pipeline may shuffle tokens, or pad their count.
        """
        traced = view.trace(images.select(range(min(TRACED_IMAGES, len(images)))))
        assert traced.merge_map is not None
        own = torch.arange(prefix, units, device=traced.merge_map.device)
        full = traced.merge_map[traced.lengths == units]
        return bool((traced.merge_map == DROPPED).any()), len(full) > 0 and bool((full == own).all())

    def standardise(self, tokens: Tensor) -> Tensor:
        """Maps token values (..., D) to mean 0 and standard deviation 1 a channel."""
        return (tokens - self.mean) / self.std

    def place_cost(self, received: Tensor) -> Tensor:
        """Returns in [0, 1] how little a received token looks like one of each place.

        Args:
            received: (B, L, D), standardised.

        Returns:
            (B, L, P + N); 0 for the most likely place of each token. The token that several patches were merged to is
            the mean of theirs, more or less, so that the linear score of each of its places stands out.
        """
        weights, bias = self.place
        score = received @ weights + bias
        highest = score.amax(dim=2, keepdim=True).clamp_min(1e-6)
        return 1.0 - (score / highest).clamp(0.0, 1.0)

    def guess(self, units: Tensor) -> Tensor:
        """Paints standardised tokens (B, P + N, D) by the linear map: images (B, 3, H, W) in [0, 1]."""
        weights, bias = self.pixels
        patches = units[:, self.prefix :] @ weights + bias
        return from_patches(patches, self.grid, *self.image_shape[1:]).clamp(0.0, 1.0)
