"""What an attacker sees: transmissions cut down to the threat model, and a handle for the attacker's own images."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.contracts import Defense, Victim
from harness.errors import AccessDeniedError, ConfigError
from harness.images import ImageSet
from harness.link import Channel, Encoded, PacketChannel, Transmission
from harness.observation import Observation
from harness.registry import create
from harness.seeding import Streams
from harness.suite import ThreatModel
from harness.tokens import TokenBatch


def transmit_all(defense: Defense, images: ImageSet, rng: Streams, batch_size: int) -> Encoded:
    """Runs the edge on all images, batch by batch, with random numbers that depend on the image alone."""
    return Encoded.concatenate([defense.encode(batch, rng.child("encode")) for batch in images.batches(batch_size)])


def eavesdropping_channel(model: ThreatModel, defense: Defense) -> Channel | None:
    """Builds the eavesdropper's own channel; None where the server is the observer.

    Raises:
        ConfigError: It cannot be built, or one of the two channels carries packets and the other tokens.
    """
    if model.channel is None:
        return None
    where = f"threat model {model.name!r}"
    channel: Channel = create("channels", model.channel.name, model.channel.options, where=where)
    if isinstance(channel, PacketChannel) != isinstance(defense.channel, PacketChannel):
        carries = ["packets" if isinstance(c, PacketChannel) else "tokens" for c in (channel, defense.channel)]
        raise ConfigError(
            f"the eavesdropper's channel {channel.name!r} carries {carries[0]}, but the server's channel "
            f"{defense.channel.name!r} carries {carries[1]}",
            where=where,
            mend="give the eavesdropper a channel of the server's kind, or leave this pair out of `cells`",
        )
    return channel


def respond_all(defense: Defense, transmission: Transmission, batch_size: int) -> Tensor:
    """Runs the server half on a large transmission, batch by batch."""
    outputs = []
    for start in range(0, len(transmission.received), batch_size):
        rows = torch.arange(start, min(start + batch_size, len(transmission.received)))
        part = Transmission(
            transmission.encoded, transmission.received.select(rows), transmission.channel_uses[rows], None
        )
        outputs.append(defense.respond(part))
    return torch.cat(outputs)


def _shuffled(batch: TokenBatch, ids: tuple[str, ...], rng: Streams) -> TokenBatch:
    """Puts the tokens of every image into a random order of its own; protected tokens lose their place too."""
    rows, inverse = [], []
    for start, length, image_id in zip(batch.offsets[:-1].tolist(), batch.lengths.tolist(), ids, strict=True):
        order = torch.randperm(length, generator=rng.child("order", image_id).torch())
        rows.append(start + order)
        inverse.append(torch.argsort(order))
    index = torch.cat(rows)
    maps = [torch.where(row < 0, row, inv[row.clamp_min(0)]) for row, inv in zip(batch.merge_map, inverse, strict=True)]
    return TokenBatch(batch.tokens[index], batch.lengths, batch.sizes[index], torch.stack(maps), 0)


def observe(
    transmission: Transmission, model: ThreatModel, grid: tuple[int, int], output: Tensor | None, rng: Streams
) -> Observation:
    """Cuts a transmission down to what the threat model grants."""
    batch, knows = transmission.received, model.knows
    if not knows.order:
        batch = _shuffled(batch, transmission.encoded.ids, rng)
    state = transmission.state
    return Observation(
        tokens=batch.tokens.float(),
        lengths=batch.lengths,
        prefix=batch.prefix,
        grid=grid,
        sizes=batch.sizes if knows.sizes and transmission.encoded.sizes_sent else None,
        merge_map=batch.merge_map if knows.merge_map else None,
        noise_std=state.noise_std if state is not None and knows.channel_state else None,
        ordered=knows.order,
        output=output if model.victim != "none" else None,
    )


class GrantedView:
    """The attacker's handle under one threat model (see ``harness.contracts.AttackerView``).

    An eavesdropper's own images come to it through its own channel, as the images under attack do.

    Args:
        victim: The victim.
        defense: The operating point under attack, prepared.
        model: What is granted.
        image_shape: (3, H, W).
        streams: Random streams of the attacker's own transmissions.
        batch_size: Images at a time on the edge.
        device: Where attacks compute.
    """

    def __init__(
        self,
        victim: Victim,
        defense: Defense,
        model: ThreatModel,
        *,
        image_shape: tuple[int, int, int],
        streams: Streams,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self._victim, self._defense, self._model = victim, defense, model
        self._streams, self._batch_size = streams, batch_size
        self._encoded: dict[str, Encoded] = {}
        self._observed: dict[str, Observation] = {}
        self.image_shape, self.grid, self.device = image_shape, defense.grid, device
        self._eavesdropping = eavesdropping_channel(model, defense)
        observed = self._eavesdropping or defense.channel
        self.noisy = observed.random or observed.snr_db is not None

    def observe(self, images: ImageSet, draw: int = 0) -> Observation:
        """Transmits the attacker's images once more; tokens are computed once, noise is drawn for every ``draw``."""
        draw = draw if self.noisy else 0
        key = images.digest()
        if key not in self._encoded:
            self._encoded[key] = transmit_all(self._defense, images, self._streams, self._batch_size)
        name = f"{key}/{draw}"
        if name not in self._observed:
            if self.noisy:  # keep one draw only: they are large, and each is used for one epoch
                self._observed = {k: v for k, v in self._observed.items() if not k.startswith(f"{key}/")}
            # An eavesdropper's noise is its own, not the server's.
            noise = self._streams.child("eavesdropper" if self._eavesdropping else "channel", draw)
            transmission = self._defense.send(self._encoded[key], noise, self._eavesdropping)
            self._observed[name] = observe(
                transmission, self._model, self.grid, None, self._streams.child("observer", draw)
            )
        return self._observed[name]

    def predict(self, images: Tensor) -> Tensor:
        """Queries the victim on images (B, 3, H, W) in [0, 1]."""
        if self._model.victim == "none":
            raise self._denied("query the victim")
        with torch.no_grad():
            return self._victim.predict(images)

    def white_box(self) -> Victim:
        """Hands out the victim."""
        if self._model.victim != "white-box":
            raise self._denied("see the victim's weights")
        return self._victim

    def _denied(self, what: str) -> AccessDeniedError:
        return AccessDeniedError(
            f"the attack tried to {what}, which its threat model does not grant",
            where=f"threat model {self._model.name!r}",
            mend="declare it in the attack's knowledge and grant it in the threat model",
        )
