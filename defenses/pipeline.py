"""The split pipeline: edge blocks with token reduction, codec, payload, channel, server blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from defenses.backbones.families import adapt
from defenses.calibration import calibrate_thresholds
from defenses.edge import AfterBlock, run_edge, run_server
from defenses.inspection import inspect_layers
from defenses.payload import parse, serialise
from harness.contracts import (
    Channel,
    Codec,
    Defense,
    Encoded,
    Transmission,
    Victim,
)
from harness.errors import ConfigError
from harness.images import ImageSet
from harness.inspection import LayerView
from harness.reduction import Reduction
from harness.registry import create, suggest
from harness.seeding import Streams
from harness.tokens import TokenBatch

Spec = str | dict[str, Any]
Precision = Literal["float32", "bfloat16", "float16"]


def _build(group: str, spec: Spec) -> Any:
    """Builds a nested plug-in from ``name`` or ``{name: ..., options}``."""
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    if "name" not in options:
        raise ConfigError(f"{group[:-1]} needs a name", where="defense 'split_pipeline'", mend="add `name: ...`")
    return create(group, options.pop("name"), options, where="defense 'split_pipeline'")


def _dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Returns the number type; raises ConfigError where it is unknown or of no use on the device."""
    if precision not in get_args(Precision):
        raise ConfigError(f"unknown precision {precision!r}", mend=suggest(str(precision), [*get_args(Precision)]))
    if precision == "float16" and device.type == "cpu":
        raise ConfigError("float16 is for GPUs", where="precision", mend="take bfloat16 on the CPU")
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


class SplitPipeline(Defense):
    """The defense of arXiv 2509.09955; with reduction ``none`` and codec ``float32``, the undefended pipeline.

    Args:
        victim: The victim.
        device: Where to compute.
        channel: Channel between edge and server.
        cut: Blocks on the edge, 1 to depth; each of them merges. Defaults to all (assumed: the paper's cut is open).
        reduction: Token reduction in every edge block.
        codec: Turns token values into payload bytes.
        proportional_attention: Add log(size) to attention logits after merging; None does what the reduction was
            published with (for ``threshold`` and ``proportion`` assumed on).
        send_sizes: Whether the payload carries sizes; None sends them where the server needs them.
        precision: Number type in which the victim computes; below float32 by autocast. Merging is decided in float32
            always, but on keys of this precision: calibrate thresholds in the precision that they are used in.
    """

    name = "split_pipeline"

    def __init__(
        self,
        victim: Victim,
        device: torch.device,
        channel: Spec = "ideal",
        cut: int | None = None,
        reduction: Spec = "none",
        codec: Spec = "float32",
        proportional_attention: bool | None = None,
        send_sizes: bool | None = None,
        precision: Precision = "float32",
    ) -> None:
        self._victim, self._device = victim, device
        self._backbone = adapt(victim.model.to(device))
        depth = self._backbone.depth
        self.cut = depth if cut is None else cut
        if isinstance(self.cut, bool) or not isinstance(self.cut, int) or not 1 <= self.cut <= depth:
            raise ConfigError(
                f"cut = {cut!r} is not a block count", where="defense 'split_pipeline'", mend=f"give 1 to {depth}"
            )
        self.grid = self._backbone.grid
        self.channel: Channel = _build("channels", channel)
        self._reduction: Reduction = _build("reductions", reduction)
        self._reduction.check(self.cut)
        self._codec: Codec = _build("codecs", codec)
        asked = proportional_attention
        self._proportional = self._reduction.proportional if asked is None else asked
        self._dtype = _dtype(precision, device)
        self._send_sizes = send_sizes if self._reduction.merges else False
        self.sizes_sent = self._sizes_sent_at(self.cut)
        # Token counts of the reference reduction, by image: a pure function of the image, kept to save time.
        self._reference_counts: dict[str, Tensor] = {}

    def _sizes_sent_at(self, cut: int) -> bool:
        """Returns whether the payload carries sizes where the cut is after ``cut`` blocks."""
        if self._send_sizes is not None:
            return self._send_sizes
        return (cut < self._backbone.depth and self._proportional) or self._backbone.pools_patches

    def edge(
        self, images: ImageSet, reduction: Reduction, rng: Streams, after_block: AfterBlock | None = None
    ) -> tuple[TokenBatch, Tensor]:
        """Runs the edge blocks: the tokens after them, and the (B, cut) token counts after each."""
        targets = self._targets(images, reduction, rng)
        with torch.no_grad(), self._autocast():
            return run_edge(
                self._backbone,
                self._victim.normalise(images.images().to(self._device)),
                images.ids,
                reduction,
                rng,
                cut=self.cut,
                proportional=self._proportional,
                targets=None if targets is None else targets.to(self._device),
                after_block=after_block,
            )

    def logits(self, images: ImageSet, rng: Streams) -> Tensor:
        """Runs the victim with its reduction, but without codec and channel: the output (B, ...) on the device."""
        batch, _ = self.edge(images, self._reduction, rng)
        layers = range(self.cut, self._backbone.depth)
        with torch.no_grad(), self._autocast():
            return run_server(self._backbone, batch, layers, proportional=self._proportional)

    def calibrated_thresholds(self, images: ImageSet, shares: float | Sequence[float]) -> list[float]:
        """Returns for each edge block the tau at which a share of the matches merges (``defenses.calibration``).

        Args:
            images: What to calibrate on.
            shares: One share in [0, 1] for all edge blocks, or one for each.
        """
        wanted = shares if isinstance(shares, Sequence) else [shares] * self.cut
        pixels = self._victim.normalise(images.images().to(self._device))
        with self._autocast():
            return calibrate_thresholds(self._backbone, pixels, wanted, proportional=self._proportional)

    def _autocast(self) -> torch.autocast:
        """Returns the context in which the victim computes."""
        return torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype != torch.float32)

    def _targets(self, images: ImageSet, reduction: Reduction, rng: Streams) -> Tensor | None:
        """Returns the (B, cut) token counts that a matched control must reach."""
        if reduction.match is None:
            return None
        if any(image_id not in self._reference_counts for image_id in images.ids):
            _, counts = self.edge(images, reduction.match, rng.child("reference"))
            self._reference_counts.update(zip(images.ids, counts.cpu(), strict=True))
        return torch.stack([self._reference_counts[image_id] for image_id in images.ids])

    def encode(self, images: ImageSet, rng: Streams) -> Encoded:
        """Runs the edge half, serialises every image's payload and decodes it again, as the receiver will."""
        batch, counts = self.edge(images, self._reduction, rng)
        batch.check()
        batch = batch.to("cpu")
        decoded, sizes, payload_bytes, side_bytes = [], [], [], []
        for start, end in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
            own = batch.sizes[start:end] if self.sizes_sent else None
            payload = serialise(batch.tokens[start:end], own, batch.prefix, self._codec)
            received = parse(payload.data, batch.prefix, self._codec)
            decoded.append(received.tokens)
            sizes.append(torch.ones(end - start, dtype=torch.long) if received.sizes is None else received.sizes)
            payload_bytes.append(len(payload.data))
            side_bytes.append(payload.side_bytes)
        return Encoded(
            ids=images.ids,
            decoded=TokenBatch(torch.cat(decoded), batch.lengths, torch.cat(sizes), batch.merge_map, batch.prefix),
            payload_bytes=torch.tensor(payload_bytes),
            side_bytes=torch.tensor(side_bytes),
            tokens_per_layer=counts.cpu(),
            sizes_sent=self.sizes_sent,
        )

    def inspect(self, image: ImageSet, rng: Streams) -> tuple[LayerView, ...]:
        """Looks at one image after every edge block."""
        # A control's reference run is the experimenter's cost: done before anything is counted.
        self._targets(image, self._reduction, rng)
        return inspect_layers(lambda see: self.edge(image, self._reduction, rng, see), self._codec, self._sizes_sent_at)

    def send(self, encoded: Encoded, rng: Streams) -> Transmission:
        """Sends the decoded token values as symbols; counts, sizes and scale are assumed to arrive."""
        received = self.channel.apply(encoded.decoded, encoded.ids, rng)
        return Transmission(encoded, received.tokens, received.channel_uses, received.state)

    def respond(self, transmission: Transmission, context: Any = None) -> Tensor:
        """Runs the server blocks and the head on what was received."""
        batch = transmission.received.to(self._device)
        layers = range(self.cut, self._backbone.depth)
        with torch.no_grad(), self._autocast():
            return run_server(self._backbone, batch, layers, proportional=self._proportional).float().cpu()
