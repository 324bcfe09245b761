"""The split pipeline: edge blocks with token reduction, codec, payload, channel, server blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from leakgauge.defenses.backbones.exactness import check_exact
from leakgauge.defenses.backbones.families import adapt
from leakgauge.defenses.ragged.calibration import calibrate_thresholds, calibrated, wish_of
from leakgauge.defenses.ragged.differentiation import differentiable_tokens
from leakgauge.defenses.ragged.edge import AfterBlock, Precision, dtype_of, run_edge, run_server
from leakgauge.defenses.ragged.embeddings import Embeddings
from leakgauge.defenses.ragged.flops import FlopTable, Reducing, counts_by_tokens, method_of
from leakgauge.defenses.ragged.layer_views import inspect_layers
from leakgauge.defenses.wire.link import Link
from leakgauge.defenses.wire.transport import OnLoss
from leakgauge.harness.contracts.defense import Defense
from leakgauge.harness.contracts.link import (
    Channel,
    Encoded,
    PacketChannel,
    Perturbation,
    Transmission,
)
from leakgauge.harness.contracts.reduction import Reduction
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.scoring.compute import Flops
from leakgauge.harness.suite.options import Count, NestedPlugin, Spec
from leakgauge.harness.suite.registry import create_nested
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.layer_view import LayerView
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

PREPARATION_IMAGES = 128
_WHERE = "defense 'split_pipeline'"


class SplitPipeline(Defense):
    """The defense of arXiv 2509.09955; with reduction ``none`` and codec ``float32``, the undefended pipeline.

        images (B, 3, H, W)
          | edge     embed, then ``cut`` times: block, reduction     tokens (T, D), packed: n_i rows an image
          |          perturbations
          | link     codec, packets, channel (``wire.link.Link``)    bytes or symbols, then tokens (T', D)
          | server   the other blocks, pooling, head
        output (B, ...)

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
        perturb: Privacy mechanisms on the tokens before they are encoded, in this order.
        packet_tokens: Patch tokens a packet, where the channel carries packets.
        on_loss: Whether lost tokens are replaced by the ``mean`` token of the calibration images, or ``drop`` leaves
            them out. Lost protected tokens are always replaced. With ``drop`` an attack that lays tokens in order does
            not see where the gaps are, although packet headers tell: its leakage is understated.
    """

    name = "split_pipeline"

    def __init__(
        self,
        victim: Victim,
        device: torch.device,
        channel: Annotated[Spec, NestedPlugin("channels")] = "ideal",
        cut: Count | None = None,
        reduction: Annotated[Spec, NestedPlugin("reductions")] = "none",
        codec: Annotated[Spec, NestedPlugin("codecs")] = "float32",
        proportional_attention: bool | None = None,
        send_sizes: bool | None = None,
        precision: Precision = "float32",
        perturb: Sequence[Annotated[Spec, NestedPlugin("perturbations")]] = (),
        packet_tokens: Count = 8,
        on_loss: OnLoss = "mean",
    ) -> None:
        self._victim, self._device = victim, device
        self._backbone = adapt(victim.to(device))
        self._check_exact()
        depth = self._backbone.depth
        self.cut = depth if cut is None else cut
        if self.cut > depth:
            raise ConfigError(f"cut = {cut!r} is not a block count", where=_WHERE, hint=f"give 1 to {depth}")
        self.grid = self._backbone.grid
        self._wire = Link(
            create_nested("channels", channel, where=_WHERE),
            create_nested("codecs", codec, where=_WHERE),
            packet_tokens,
            on_loss,
        )
        self.channel = self._wire.channel
        self._reduction: Reduction = create_nested("reductions", reduction, where=_WHERE)
        self._reduction.check(self.cut)
        self._stated = self._reduction
        self._resolved: dict[str, Any] = {}
        self._perturb: list[Perturbation] = [create_nested("perturbations", spec, where=_WHERE) for spec in perturb]
        self._link: dict[str, Any] = {"channel": channel, "cut": cut, "codec": codec, "precision": precision}
        self._link |= {"packet_tokens": packet_tokens, "on_loss": on_loss}
        self._options = {**self._link, "reduction": reduction, "proportional_attention": proportional_attention}
        self._options |= {"send_sizes": send_sizes, "perturb": perturb}
        self._embeddings = Embeddings(self._backbone, victim, device)
        self._flop_table = FlopTable(self._backbone, victim, device)
        self._proportional = self._reduction.proportional if proportional_attention is None else proportional_attention
        self._dtype = dtype_of(precision, device)
        self._send_sizes = send_sizes if self._reduction.merges else False
        self.sizes_sent = self._sizes_sent_at(self.cut)
        # Token counts of a reference reduction, by image: a pure function of the image, kept to save time.
        self._reference_counts: dict[tuple[Reduction, str], Tensor] = {}

    def _check_exact(self) -> None:
        """Checks once a victim that its blocks, run one by one, compute what the model itself does."""
        check_exact(self._victim, self._backbone, self._device)

    def _sizes_sent_at(self, cut: int) -> bool:
        """Returns whether the payload carries sizes where the cut is after ``cut`` blocks."""
        if self._send_sizes is not None:
            return self._send_sizes
        return (cut < self._backbone.depth and self._proportional) or self._backbone.pools_patches

    def edge(
        self, images: ImageSet, reduction: Reduction, rng: Streams, after_block: AfterBlock | None = None
    ) -> tuple[TokenBatch, Tensor]:
        """Runs the edge: the tokens after it, and the (B, cut) token counts after each block."""
        return self._run_blocks(images, reduction, rng, after_block)

    def _run_blocks(
        self, images: ImageSet, reduction: Reduction, rng: Streams, after_block: AfterBlock | None = None
    ) -> tuple[TokenBatch, Tensor]:
        """Runs the edge blocks: the tokens of each unit after them, and the (units, cut) token counts."""
        targets = self._targets(images, reduction, rng)
        with torch.no_grad(), self._autocast():
            return run_edge(
                self._backbone,
                self._embeddings.of(images),
                self._units(images.ids),
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
        """Returns for each edge block the tau at which a share of matches merges (``ragged.calibration``).

        Args:
            images: What to calibrate on.
            shares: One share in [0, 1] for all edge blocks, or one for each.
        """
        wanted = shares if isinstance(shares, Sequence) else [shares] * self.cut
        with torch.no_grad(), self._autocast():
            batch = self._embeddings.of(images)
            return calibrate_thresholds(self._backbone, batch, wanted, proportional=self._proportional)

    def tuned(self, **options: Any) -> SplitPipeline:
        """Returns a pipeline with other options, all else equal, unprepared; both share embeddings and FLOP counts."""
        sibling = type(self)(self._victim, self._device, **{**self._options, **options})
        sibling._embeddings, sibling._flop_table = self._embeddings.keep(), self._flop_table
        return sibling

    def flops(
        self, images: ImageSet, transmission: Transmission, questions: Any = None, output: Tensor | None = None
    ) -> Flops | None:
        """Returns what each image alone costs (``ragged.flops``); None where counts do not decide."""
        if not self._counts_by_tokens:
            return None
        with torch.no_grad(), self._autocast():
            return self._flop_table.count(images, transmission, self._reducing, self._serialised)

    @property
    def _counts_by_tokens(self) -> bool:
        return not (self._perturb or isinstance(self.channel, PacketChannel)) and counts_by_tokens(self._reduction)

    @property
    def _reducing(self) -> Reducing:
        return Reducing(self._reduction, method_of(self._options["reduction"]), self.cut, self._proportional)

    def _autocast(self) -> torch.autocast:
        """Returns the context in which the victim computes."""
        return torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype != torch.float32)

    def _units(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        """Returns identifiers of all that runs through the blocks alone: the images themselves, or their tiles."""
        return ids

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
        """Whether thresholds are calibrated, the codec is fitted, or lost tokens are stood in for."""
        return wish_of(self._stated) is not None or self._wire.needs_tokens

    def unreduced(self) -> SplitPipeline:
        """Returns the pipeline with neither reduction nor perturbations, all else equal; unprepared."""
        return type(self)(self._victim, self._device, **self._link)

    def prepare(self, calibration: ImageSet, rng: Streams) -> None:
        """Fits what edge and server share beforehand: thresholds, a learned codec, what stands in for lost tokens."""
        if not self.needs_calibration:
            return
        count = min(PREPARATION_IMAGES, len(calibration))
        images = calibration.select(torch.linspace(0, len(calibration) - 1, count).round().long())
        self._reduction, self._resolved = self._calibrate(images)
        if not self._wire.needs_tokens:
            return
        batch = self.edge(images, self._reduction, rng)[0].to("cpu")
        batch = batch.with_tokens(batch.tokens.float())
        self._wire.prepare(batch, rng)

    def _calibrate(self, images: ImageSet) -> tuple[Reduction, dict[str, Any]]:
        """Returns the reduction with the thresholds that a suite leaves to these images, and what was found."""
        if wish_of(self._stated) is None:
            return self._stated, {}
        with torch.no_grad(), self._autocast():
            batch = self._embeddings.of(images)
            return calibrated(self._stated, self._backbone, batch, self.cut, proportional=self._proportional)

    def resolved(self) -> dict[str, Any]:
        """Returns the calibrated thresholds with their shares, what they keep and of how many images; else nothing."""
        return dict(self._resolved)

    def tokens_kept(self, calibration: ImageSet, rng: Streams) -> float:
        """Returns the mean share of an image's tokens after the edge, by thresholds calibrated on these images."""
        _, counts = self._run_blocks(calibration, self._calibrate(calibration)[0], rng)
        rows, columns = self._backbone.grid
        return float(counts[:, -1].double().mean()) / (self._backbone.prefix + rows * columns)

    def encode(self, images: ImageSet, rng: Streams) -> Encoded:
        """Runs the edge half, perturbs, and serialises every image's packets."""
        batch, counts = self.edge(images, self._reduction, rng)
        batch.check()
        batch = batch.to("cpu")
        batch = batch.with_tokens(batch.tokens.float())
        for i, perturbation in enumerate(self._perturb):
            batch = perturbation.apply(batch, images.ids, rng.child("perturb", i, perturbation.name))
            batch.check()
        return self._serialised(batch, images.ids, counts)

    def _serialised(self, batch: TokenBatch, ids: tuple[str, ...], counts: Tensor) -> Encoded:
        return self._wire.encode(batch, ids, counts, self.sizes_sent)

    def inspect(self, image: ImageSet, rng: Streams) -> tuple[LayerView, ...]:
        """Looks at one image after every edge block."""
        # A control's reference run is the experimenter's cost: done before anything is counted.
        self._targets(image, self._reduction, rng)

        def size(batch: TokenBatch, blocks: int) -> int:
            return sum(len(packet.data) for packet in self._wire.packets(batch, self._sizes_sent_at(blocks))[0])

        return inspect_layers(lambda see: self.edge(image, self._reduction, rng, see), size)

    def edge_tokens(self, images: Tensor) -> TokenBatch:
        """Runs the edge blocks without reduction on images (B, 3, H, W) in [0, 1]; gradients reach the images."""
        with self._autocast():
            return differentiable_tokens(self._victim.model, self._backbone, self._victim.normalise(images), self.cut)

    def send(self, encoded: Encoded, rng: Streams, channel: Channel | None = None) -> Transmission:
        """Sends payloads once, through the pipeline's channel or an eavesdropper's."""
        return self._wire.send(encoded, rng, channel)

    def respond(self, transmission: Transmission, questions: Any = None) -> Tensor:
        """Runs the server blocks and the head on what was received."""
        batch = transmission.received.to(self._device)
        batch = batch.with_tokens(batch.tokens.to(self._backbone.dtype))
        layers = range(self.cut, self._backbone.depth)
        with torch.no_grad(), self._autocast():
            return run_server(self._backbone, batch, layers, proportional=self._proportional).float().cpu()
