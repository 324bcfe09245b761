"""The split pipeline: edge blocks with token reduction, codec, payload, channel, server blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from defenses.backbones.timm_vit import TimmViT
from defenses.merging import apply_assignment
from defenses.payload import parse, serialise
from harness.contracts import (
    Channel,
    Codec,
    Defense,
    Encoded,
    LayerState,
    Reduction,
    Transmission,
    Victim,
)
from harness.errors import ConfigError
from harness.images import ImageSet
from harness.registry import create
from harness.seeding import Streams
from harness.tokens import TokenBatch

Spec = str | dict[str, Any]


def _build(group: str, spec: Spec) -> Any:
    """Builds a nested plug-in from ``name`` or ``{name: ..., options}``."""
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    if "name" not in options:
        raise ConfigError(f"{group[:-1]} needs a name", where="defense 'split_pipeline'", mend="add `name: ...`")
    return create(group, options.pop("name"), options, where="defense 'split_pipeline'")


class SplitPipeline(Defense):
    """The defense of arXiv 2509.09955; with reduction ``none`` and codec ``float32``, the undefended pipeline.

    Args:
        victim: The victim.
        device: Where to compute.
        channel: Channel between edge and server.
        cut: Blocks on the edge, 1 to depth; each of them merges. Defaults to all (assumed: the paper's cut is open).
        reduction: Token reduction in every edge block.
        codec: Turns token values into payload bytes.
        proportional_attention: Add log(size) to attention logits after merging (assumed on).
        send_sizes: Whether the payload carries sizes; None sends them where the server needs them.
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
        proportional_attention: bool = True,
        send_sizes: bool | None = None,
    ) -> None:
        self._victim, self._device = victim, device
        self._backbone = TimmViT(victim.model.to(device))
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
        self._proportional = proportional_attention
        needed = (self.cut < depth and proportional_attention) or not self._backbone.pools_token
        self.sizes_sent = (needed if send_sizes is None else send_sizes) and reduction != "none"
        # Token counts of the reference reduction, by image: a pure function of the image, kept to save time.
        self._reference_counts: dict[str, Tensor] = {}

    @torch.no_grad()
    def edge(self, images: ImageSet, reduction: Reduction, rng: Streams) -> tuple[TokenBatch, Tensor]:
        """Runs the edge blocks: the tokens after them, and the (B, cut) token counts after each."""
        batch = self._backbone.embed(self._victim.normalise(images.images().to(self._device)))
        targets = self._targets(images, reduction, rng)
        counts = []
        for layer in range(self.cut):
            attended = self._backbone.attend(layer, batch, proportional=self._proportional)
            batch = batch.with_tokens(attended.tokens)
            state = LayerState(
                keys=attended.keys,
                sizes=batch.sizes,
                attention=None,
                lengths=batch.lengths,
                prefix=batch.prefix,
                layer=layer,
                ids=images.ids,
                target_lengths=None if targets is None else targets[:, layer].to(self._device),
            )
            assignment = reduction.assign(state, rng)
            if assignment is not None:
                batch = apply_assignment(batch, assignment)
            batch = batch.with_tokens(self._backbone.mlp(layer, batch.tokens))
            counts.append(batch.lengths)
        return batch, torch.stack(counts, dim=1)

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

    def send(self, encoded: Encoded, rng: Streams) -> Transmission:
        """Sends the decoded token values as symbols; counts, sizes and scale are assumed to arrive."""
        received = self.channel.apply(encoded.decoded, encoded.ids, rng)
        return Transmission(encoded, received.tokens, received.channel_uses, received.state)

    @torch.no_grad()
    def respond(self, transmission: Transmission, context: Any = None) -> Tensor:
        """Runs the server blocks and the head on what was received."""
        batch = transmission.received.to(self._device)
        for layer in range(self.cut, self._backbone.depth):
            attended = self._backbone.attend(layer, batch, proportional=self._proportional)
            batch = batch.with_tokens(self._backbone.mlp(layer, attended.tokens))
        return self._backbone.finish(batch).cpu()
