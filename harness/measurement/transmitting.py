"""Runs both halves of a defense on more images than fit at once, and tells what sending them cost."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from leakgauge.harness.contracts.defense import Defense
from leakgauge.harness.contracts.link import Channel, Encoded, Transmission
from leakgauge.harness.errors import PluginError
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.questions import Questions
from leakgauge.harness.values.seeding import Streams

Cached = Callable[[str, Callable[[], Encoded]], Encoded]
"""Returns what the edge sent for a named set of images: what was kept under that name, or what is computed now."""


def compute_anew(name: str, compute: Callable[[], Encoded]) -> Encoded:
    """Keeps nothing: runs the edge."""
    return compute()


def transmit_all(defense: Defense, images: ImageSet, rng: Streams, batch_size: int) -> Encoded:
    """Runs the edge on all images, batch by batch, with random numbers that depend on the image alone."""
    return Encoded.concatenate([defense.encode(batch, rng.child("encode")) for batch in images.batches(batch_size)])


@dataclass(frozen=True)
class Passage:
    """One way of B images through edge, channel and server.

    Args:
        encoded: What the edge made of the images, which other receivers are sent again.
        transmission: What the server received.
        output: (B, ...) what the server answered.
        costs: (B,) each: what ``link_costs`` tells of sending them.
    """

    encoded: Encoded
    transmission: Transmission
    output: Tensor
    costs: dict[str, Tensor]


def pass_through(
    defense: Defense,
    images: ImageSet,
    questions: Questions | None,
    streams: Streams,
    batch_size: int,
    bandwidth_hz: float,
    cached: Cached = compute_anew,
) -> Passage:
    """Sends images once, and has them answered.

    Args:
        defense: The operating point, prepared.
        images: B images.
        questions: Those about the images, where the task asks.
        streams: Random streams.
        batch_size: Images at a time on edge and server.
        bandwidth_hz: Complex symbols a second, assumed.
        cached: Looks up what the edge sent before it has to run.
    """
    name = f"evaluation {images.full_digest()}"
    encoded = cached(name, lambda: transmit_all(defense, images, streams, batch_size))
    transmission = send(defense, encoded, streams.child("channel"))
    output = respond_all(defense, transmission, batch_size, questions)
    return Passage(encoded, transmission, output, link_costs(transmission, bandwidth_hz))


def send(defense: Defense, encoded: Encoded, rng: Streams, channel: Channel | None = None) -> Transmission:
    """Sends what the edge made of images once; others send the same tokens again, so that they must stay as they are.

    Raises:
        PluginError: The channel or the defense wrote into the tokens that it was to carry.
    """
    before = _digest(encoded)
    sent = defense.send(encoded, rng, channel)
    if _digest(encoded) != before:
        carrier = channel or defense.channel
        raise PluginError(
            "the tokens that were to be carried have been written over",
            where=f"channel {getattr(carrier, 'name', '?')!r} of defense {defense.name!r}",
            hint="work on a copy, `sent.with_tokens(sent.tokens.clone())`",
        )
    return sent


def _digest(encoded: Encoded) -> tuple[int, ...]:
    batches = [batch for batch in (encoded.decoded, encoded.symbols) if batch is not None]
    tensors = [part for b in batches for part in (b.tokens, b.lengths, b.sizes, b.merge_map)]
    return tuple(zlib.crc32(tensor.contiguous().view(-1).view(torch.uint8).numpy().data) for tensor in tensors)


def respond_all(
    defense: Defense, transmission: Transmission, batch_size: int, questions: Questions | None = None
) -> Tensor:
    """Runs the server half on a large transmission, batch by batch; ``questions`` are those about its images."""
    outputs = []
    for start in range(0, len(transmission.received), batch_size):
        rows = torch.arange(start, min(start + batch_size, len(transmission.received)))
        part = Transmission(
            transmission.encoded, transmission.received.select(rows), transmission.channel_uses[rows], None
        )
        outputs.append(defense.respond(part, None if questions is None else questions.select(rows)))
    return joined(outputs)


def joined(outputs: list[Tensor]) -> Tensor:
    """Joins the outputs (b, ...) of batches; answers to fewer questions than in other batches are filled up (-1)."""
    most = max((output.shape[1] for output in outputs if output.ndim == 3), default=0)
    return torch.cat([pad(o, (0, 0, 0, most - o.shape[1]), value=-1) if o.ndim == 3 else o for o in outputs])


def link_costs(transmission: Transmission, bandwidth_hz: float) -> dict[str, Tensor]:
    """Returns what sending each image cost, (B,) a column, by its name in ``leakgauge.harness.values.columns``.

    Args:
        transmission: What the server received.
        bandwidth_hz: Complex symbols a second, assumed.
    """
    encoded, uses = transmission.encoded, transmission.channel_uses.double()
    lost = torch.zeros(len(uses), dtype=torch.long) if transmission.lost is None else transmission.lost
    efficiency = 8 * encoded.payload_bytes.double() / uses
    return {
        "tokens": encoded.decoded.lengths,
        "payload_bytes": encoded.payload_bytes,
        "side_bytes": encoded.side_bytes,
        "channel_uses": transmission.channel_uses,
        "air_time_ms": uses / bandwidth_hz * 1e3,
        "spectral_efficiency_bits": torch.where(uses > 0, efficiency, torch.nan),
        "lost_tokens": lost,
    }


class Line:
    """The attacker's own transmissions through one defense. Tokens are computed once, noise is drawn for every draw.

    Args:
        name: Names the defense among those of the view.
        defense: The defense, prepared.
        eavesdropping: The eavesdropper's own channel; None hears the server's.
        streams: Random streams.
        batch_size: Images at a time on the edge.
        cached: Looks tokens up before the edge has to run.
    """

    def __init__(
        self,
        name: str,
        defense: Defense,
        eavesdropping: Channel | None,
        streams: Streams,
        batch_size: int,
        cached: Cached,
    ) -> None:
        self.defense, self.eavesdropping = defense, eavesdropping
        self._name, self._streams, self._batch_size, self._cached = name, streams, batch_size, cached
        self._encoded: dict[str, Encoded] = {}
        self._sent: dict[str, tuple[int, Transmission]] = {}
        heard = eavesdropping or defense.channel
        self.noisy = heard.random or heard.snr_db is not None

    def transmission(self, images: ImageSet, draw: int) -> Transmission:
        """Returns the transmission of a draw: the same object until another draw of these images is asked for."""
        draw = draw if self.noisy else 0
        key = images.digest()
        if key not in self._encoded:
            self._encoded[key] = self._cached(
                f"{self._name} {images.full_digest()}",
                lambda: transmit_all(self.defense, images, self._streams, self._batch_size),
            )
        # One draw only is kept: they are large, and each is used for one epoch.
        if key not in self._sent or self._sent[key][0] != draw:
            # An eavesdropper's noise is its own, not the server's.
            noise = self._streams.child("eavesdropper" if self.eavesdropping else "channel", draw)
            self._sent[key] = (draw, send(self.defense, self._encoded[key], noise, self.eavesdropping))
        return self._sent[key][1]

    def branch(self) -> Line:
        """Returns a line that starts with what is cached here and keeps to itself what it adds."""
        twin = copy(self)
        twin._cached = compute_anew
        twin._encoded, twin._sent = dict(self._encoded), dict(self._sent)
        return twin
