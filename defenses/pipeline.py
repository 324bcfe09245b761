"""The split pipeline: an edge, a link and a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from leakgauge.defenses.backbones.exactness import check_exact
from leakgauge.defenses.backbones.families import adapt
from leakgauge.defenses.ragged.edge import Edge
from leakgauge.defenses.ragged.flops import method_of
from leakgauge.defenses.ragged.forward import Precision
from leakgauge.defenses.ragged.server import ClassifierServer, SplitServer
from leakgauge.defenses.ragged.split_victim import SplitVictim
from leakgauge.defenses.wire.link import Link
from leakgauge.defenses.wire.transport import OnLoss
from leakgauge.harness.contracts.defense import Defense
from leakgauge.harness.contracts.link import Channel, Encoded, Perturbation, Transmission
from leakgauge.harness.contracts.reduction import Reduction
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.options import Count, NestedPlugin, Spec
from leakgauge.harness.suite.registry import create_nested
from leakgauge.harness.values.flops import Flops
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.layer_view import LayerView
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

PREPARATION_IMAGES = 128
_WHERE = "defense 'split_pipeline'"


class SplitPipeline(Defense):
    """The defense of arXiv 2509.09955; with reduction ``none`` and codec ``float32``, the undefended pipeline.

        images (B, 3, H, W)
          | edge     embed, then ``cut`` times: block, reduction;    tokens (T, D), packed: n_i rows an image
          |          perturbations (``ragged.edge.Edge``)
          | link     codec, packets, channel (``wire.link.Link``)    bytes or symbols, then tokens (T', D)
          | server   the other blocks, pooling, head                 ``ragged.server.ClassifierServer``; where the
          |                                                          victim is asked, ``vqa.server.LanguageServer``
        output (B, ...)

    Beside what every defense does it can be previewed, inspected, had unreduced, differentiated and tuned
    (``harness.contracts.defense``).

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
    _reducing: ClassVar = frozenset({"reduction", "proportional_attention", "send_sizes", "perturb"})
    """Options that the unreduced sibling is built without."""

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
        self._options: dict[str, Any] = {"channel": channel, "cut": cut, "codec": codec, "precision": precision}
        self._options |= {"packet_tokens": packet_tokens, "on_loss": on_loss, "reduction": reduction}
        self._options |= {"proportional_attention": proportional_attention, "send_sizes": send_sizes}
        self._options |= {"perturb": perturb}
        backbone = adapt(victim.to(device))
        depth = backbone.depth
        self.cut = depth if cut is None else cut
        if self.cut > depth:
            raise ConfigError(f"cut = {cut!r} is not a block count", where=_WHERE, hint=f"give 1 to {depth}")
        self.link = Link(
            create_nested("channels", channel, where=_WHERE),
            create_nested("codecs", codec, where=_WHERE),
            packet_tokens,
            on_loss,
        )
        self.channel = self.link.channel
        reducing: Reduction = create_nested("reductions", reduction, where=_WHERE)
        reducing.check(self.cut)
        perturbing: list[Perturbation] = [create_nested("perturbations", spec, where=_WHERE) for spec in perturb]
        proportional = reducing.proportional if proportional_attention is None else proportional_attention
        self._split = SplitVictim(victim, backbone, device, self.cut, precision, proportional)
        edge = partial(Edge, self._split, reducing, method_of(reduction), perturbing, send_sizes)
        self.edge, self.server = self._halves(self._split, edge)
        self.grid = self.edge.grid

    def _halves(self, split: SplitVictim, edge: Callable[..., Edge]) -> tuple[Edge, SplitServer]:
        """Builds edge and server of a classifier, once it is known that its blocks run as in the model itself."""
        check_exact(split.victim, split.backbone, split.device)
        return edge(), ClassifierServer(split)

    @property
    def needs_calibration(self) -> bool:
        """Whether thresholds are calibrated, the codec is fitted, or lost tokens are stood in for."""
        return self.edge.needs_calibration or self.link.needs_tokens

    def prepare(self, calibration: ImageSet, rng: Streams) -> None:
        """Fits what edge and server share beforehand: thresholds, a learned codec, what stands in for lost tokens."""
        if not self.needs_calibration:
            return
        count = min(PREPARATION_IMAGES, len(calibration))
        images = calibration.select(torch.linspace(0, len(calibration) - 1, count).round().long())
        self.edge.calibrate(images)
        if self.link.needs_tokens:
            self.link.prepare(self.edge.unperturbed(images, rng)[0], rng)

    def resolved(self) -> dict[str, Any]:
        """Returns the calibrated thresholds with their shares, what they keep and of how many images; else nothing."""
        return self.edge.resolved()

    def encode(self, images: ImageSet, rng: Streams) -> Encoded:
        """Runs the edge half, perturbs, and serialises every image's packets."""
        batch, counts = self.edge.tokens(images, rng)
        return self.link.encode(batch, images.ids, counts, self.edge.sizes_sent())

    def send(self, encoded: Encoded, rng: Streams, channel: Channel | None = None) -> Transmission:
        """Sends payloads once, through the pipeline's channel or an eavesdropper's."""
        return self.link.send(encoded, rng, channel)

    def respond(self, transmission: Transmission, questions: Any = None) -> Tensor:
        """Runs the server half on what was received."""
        return self.server.respond(transmission, questions)

    def tokens_kept(self, calibration: ImageSet, rng: Streams) -> float:
        """Returns the mean share of an image's tokens after the edge, by thresholds calibrated on these images."""
        return self.edge.tokens_kept(calibration, rng)

    def inspect(self, image: ImageSet, rng: Streams) -> tuple[LayerView, ...]:
        """Looks at one image after every edge block."""
        return self.edge.inspect(image, rng, self.link.payload_bytes)

    def edge_tokens(self, images: Tensor) -> TokenBatch:
        """Runs the edge without reduction on images (B, 3, H, W) in [0, 1]; gradients reach the images."""
        return self.edge.differentiable(images)

    def unreduced(self) -> SplitPipeline:
        """Returns the pipeline with neither reduction nor perturbations, all else equal; unprepared."""
        options = {key: value for key, value in self._options.items() if key not in self._reducing}
        return type(self)(self._victim, self._device, **options)

    def tuned(self, **options: Any) -> SplitPipeline:
        """Returns a pipeline with other options, all else equal, unprepared; both share embeddings and FLOP counts."""
        sibling = type(self)(self._victim, self._device, **{**self._options, **options})
        sibling._split.share(self._split)
        return sibling

    def calibrated_thresholds(self, images: ImageSet, shares: float | Sequence[float]) -> list[float]:
        """Returns for each edge block the tau at which a share of matches merges (``ragged.calibration``).

        Args:
            images: What to calibrate on.
            shares: One share in [0, 1] for all edge blocks, or one for each.
        """
        return self.edge.thresholds_for(images, shares if isinstance(shares, Sequence) else [shares] * self.cut)

    def flops(
        self, images: ImageSet, transmission: Transmission, questions: Any = None, output: Tensor | None = None
    ) -> Flops | None:
        """Returns what each image alone costs (``ragged.flops``); None where token counts do not decide."""
        if not self.edge.counts_by_tokens or self.link.may_lose:
            return None
        serialise = partial(self.link.encode, sizes_sent=self.edge.sizes_sent())
        with torch.no_grad(), self._split.autocast():
            encoding = self._split.flop_table.encoding(transmission, serialise)
            edge = map(sum, zip(self.edge.flops(images, transmission), encoding, strict=True))
            return self.server.flops(list(edge), transmission, questions, output)
