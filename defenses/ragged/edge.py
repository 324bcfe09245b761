"""The edge: the half of a split pipeline that sees the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from leakgauge.defenses.ragged.calibration import calibrate_thresholds, calibrated, wish_of
from leakgauge.defenses.ragged.differentiation import differentiable_tokens
from leakgauge.defenses.ragged.flops import Reducing, counts_by_tokens
from leakgauge.defenses.ragged.forward import AfterBlock, run_edge
from leakgauge.defenses.ragged.layer_views import inspect_layers
from leakgauge.defenses.ragged.split_victim import SplitVictim
from leakgauge.harness.contracts.link import Perturbation, Transmission
from leakgauge.harness.contracts.reduction import Reduction
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.layer_view import LayerView
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch


def as_they_are(batch: TokenBatch) -> TokenBatch:
    """Sends the tokens that leave the last edge block."""
    return batch


class Edge:
    """Blocks of the victim up to the cut, a reduction in each, and perturbations of what is left.

        images (B, 3, H, W)
          | embed                                       tokens, packed: n rows an image, or tile of it
          | cut times: attention, reduction, MLP        fewer rows
          | outgoing                                    tokens (T, D) that are sent, n_i of image i
          | float32 on the CPU; perturbations           tokens (T, D) for the link

    Args:
        split: The victim, cut.
        reduction: Token reduction in every edge block, as a suite states it.
        method: Its name with the options that are words (``ragged.flops.method_of``).
        perturbations: Privacy mechanisms, in this order.
        send_sizes: Whether sizes are sent; None sends them where the server needs them.
        tiles: Images that the blocks run for one image of the task.
        outgoing: Makes of the tokens after the last edge block those that are sent.
    """

    def __init__(
        self,
        split: SplitVictim,
        reduction: Reduction,
        method: str,
        perturbations: Sequence[Perturbation],
        send_sizes: bool | None,
        tiles: int = 1,
        outgoing: Callable[[TokenBatch], TokenBatch] = as_they_are,
    ) -> None:
        self._split, self._stated, self._method = split, reduction, method
        self._perturbations, self._tiles, self._outgoing = perturbations, tiles, outgoing
        self._send_sizes = send_sizes if reduction.merges else False
        self._reduction, self._resolved = reduction, dict[str, Any]()
        # Token counts of a reference reduction, by image: a pure function of the image, kept to save time.
        self._reference_counts: dict[tuple[Reduction, str], Tensor] = {}

    @property
    def grid(self) -> tuple[int, int]:
        """Patch rows and columns of an image, its tiles one below the other."""
        rows, columns = self._split.backbone.grid
        return rows * self._tiles, columns

    def sizes_sent(self, cut: int | None = None) -> bool:
        """Returns whether the payload carries sizes, where it is written after ``cut`` blocks (default: the cut)."""
        if self._send_sizes is not None:
            return self._send_sizes
        return self._split.needs_sizes(self._split.cut if cut is None else cut)

    def tokens(self, images: ImageSet, rng: Streams) -> tuple[TokenBatch, Tensor]:
        """Returns the tokens for the link, float32 on the CPU, and the (B, cut) token counts after each block."""
        batch, counts = self.unperturbed(images, rng)
        for i, perturbation in enumerate(self._perturbations):
            batch = perturbation.apply(batch, images.ids, rng.child("perturb", i, perturbation.name))
            batch.check()
        return batch, counts

    def unperturbed(self, images: ImageSet, rng: Streams) -> tuple[TokenBatch, Tensor]:
        """Returns what ``tokens`` does, without perturbations."""
        batch, counts = self.run(images, rng)
        batch.check()
        batch = batch.to("cpu")
        return batch.with_tokens(batch.tokens.float()), counts

    def run(self, images: ImageSet, rng: Streams, after_block: AfterBlock | None = None) -> tuple[TokenBatch, Tensor]:
        """Runs the blocks: the tokens of each image that are sent, and the (B, cut) token counts after each block."""
        batch, counts = self._run_blocks(images, self._reduction, rng, after_block)
        with torch.no_grad(), self._split.autocast():
            return self._outgoing(batch), counts.view(len(images), self._tiles, counts.shape[1]).sum(dim=1)

    def _run_blocks(
        self, images: ImageSet, reduction: Reduction, rng: Streams, after_block: AfterBlock | None = None
    ) -> tuple[TokenBatch, Tensor]:
        """Runs the blocks: the tokens of each unit after them, and the (units, cut) token counts."""
        split, targets = self._split, self._targets(images, reduction, rng)
        with torch.no_grad(), split.autocast():
            return run_edge(
                split.backbone,
                split.embeddings.of(images),
                self._units(images.ids),
                reduction,
                rng,
                cut=split.cut,
                proportional=split.proportional,
                targets=None if targets is None else targets.to(split.device),
                after_block=after_block,
            )

    def _units(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        """Returns identifiers of all that runs through the blocks alone: the images themselves, or their tiles."""
        if self._tiles == 1:
            return ids
        return tuple(f"{image_id}#{tile}" for image_id in ids for tile in range(self._tiles))

    def _targets(self, images: ImageSet, reduction: Reduction, rng: Streams) -> Tensor | None:
        """Returns the (units, cut) token counts that a matched control must reach."""
        if reduction.match is None:
            return None
        keys = [(reduction.match, unit) for unit in self._units(images.ids)]
        if any(key not in self._reference_counts for key in keys):
            _, counts = self._run_blocks(images, reduction.match, rng.child("reference"))
            self._reference_counts.update(zip(keys, counts.cpu(), strict=True))
        return torch.stack([self._reference_counts[key] for key in keys])

    @property
    def needs_calibration(self) -> bool:
        """Whether thresholds are left to calibration images."""
        return wish_of(self._stated) is not None

    def calibrate(self, images: ImageSet) -> None:
        """Finds the thresholds that a suite leaves to these images."""
        self._reduction, self._resolved = self._calibrated(images)

    def _calibrated(self, images: ImageSet) -> tuple[Reduction, dict[str, Any]]:
        """Returns the reduction with the thresholds that a suite leaves to these images, and what was found."""
        if not self.needs_calibration:
            return self._stated, {}
        split = self._split
        with torch.no_grad(), split.autocast():
            batch = split.embeddings.of(images)
            return calibrated(self._stated, split.backbone, batch, split.cut, proportional=split.proportional)

    def resolved(self) -> dict[str, Any]:
        """Returns the calibrated thresholds with their shares, what they keep and of how many images; else nothing."""
        return dict(self._resolved)

    def tokens_kept(self, calibration: ImageSet, rng: Streams) -> float:
        """Returns the mean share of an image's tokens after the blocks, by thresholds calibrated on these images."""
        _, counts = self._run_blocks(calibration, self._calibrated(calibration)[0], rng)
        rows, columns = self._split.backbone.grid
        return float(counts[:, -1].double().mean()) / (self._split.backbone.prefix + rows * columns)

    def thresholds_for(self, images: ImageSet, shares: Sequence[float]) -> list[float]:
        """Returns for each edge block the tau at which a share in [0, 1] of matches merges (``ragged.calibration``)."""
        split = self._split
        with torch.no_grad(), split.autocast():
            batch = split.embeddings.of(images)
            return calibrate_thresholds(split.backbone, batch, shares, proportional=split.proportional)

    def inspect(
        self, image: ImageSet, rng: Streams, payload_size: Callable[[TokenBatch, bool], int]
    ) -> tuple[LayerView, ...]:
        """Looks at one image after every block; ``payload_size`` tells the bytes of tokens, with their sizes or not."""
        # A control's reference run is the experimenter's cost: done before anything is counted.
        self._targets(image, self._reduction, rng)
        return inspect_layers(
            lambda see: self.run(image, rng, see), lambda batch, blocks: payload_size(batch, self.sizes_sent(blocks))
        )

    def differentiable(self, images: Tensor) -> TokenBatch:
        """Runs the blocks without reduction on images (B, 3, H, W) in [0, 1]; gradients reach the images."""
        split = self._split
        with split.autocast():
            pixels = split.victim.normalise(images)
            return differentiable_tokens(split.victim.model, split.backbone, pixels, split.cut, self._outgoing)

    @property
    def counts_by_tokens(self) -> bool:
        """Whether what is computed for an image depends on it through its token counts alone."""
        return not self._perturbations and self._tiles == 1 and counts_by_tokens(self._reduction)

    def flops(self, images: ImageSet, transmission: Transmission) -> list[int]:
        """Returns the FLOPs of each image in embedding and blocks, where ``counts_by_tokens``."""
        reducing = Reducing(self._reduction, self._method, self._split.cut, self._split.proportional)
        return self._split.flop_table.edge(images, transmission, reducing)
