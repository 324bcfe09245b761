"""What an attacker sees: transmissions cut down to the threat model, and a handle for the attacker's own images."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from leakgauge.harness.contracts.defense import Defense, ablatable, differentiable
from leakgauge.harness.contracts.link import Channel, PacketChannel, Transmission
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import AccessDeniedError, ConfigError, PluginError, SpoiledError
from leakgauge.harness.measurement.operating_point import PointMeasurement, Preparation
from leakgauge.harness.measurement.transmitting import Cached, Line, compute_anew, send
from leakgauge.harness.suite.registry import create
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import DROPPED, TokenBatch


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
            hint="give the eavesdropper a channel of the server's kind, or leave this pair out of `cells`",
        )
    return channel


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
        tokens=batch.tokens.detach().float(),
        lengths=batch.lengths,
        prefix=batch.prefix,
        grid=grid,
        sizes=batch.sizes if knows.sizes and transmission.encoded.sizes_sent else None,
        merge_map=batch.merge_map if knows.merge_map else None,
        noise_std=state.noise_std if state is not None and knows.channel_state else None,
        ordered=knows.order,
        output=output.detach() if output is not None and model.victim != "none" else None,
    )


class Overheard(NamedTuple):
    """What the attacker observes of an operating point.

    Attributes:
        observation: Cut down to what the threat model grants.
        received: The tokens behind it, with their true merge map, which no attacker sees.
    """

    observation: Observation
    received: TokenBatch


def overhear(point: PointMeasurement, model: ThreatModel, streams: Streams) -> Overheard:
    """Returns what the attacker observes of the images that an operating point was measured on.

    All costs are the server's; only the observation is an eavesdropper's, where the threat model has one.
    """
    sent, channel = point.transmission, eavesdropping_channel(model, point.defense)
    if channel is not None:
        sent = send(point.defense, point.encoded, streams.child("eavesdropper"), channel)
    seen = observe(sent, model, point.defense.grid, point.output, streams.child("observer"))
    return Overheard(seen, sent.received)


def _patches_a_token(batch: TokenBatch) -> Tensor:
    """Returns (T,) how many patches the merge map lays on each token; 1 for tokens that none points to."""
    kept = batch.merge_map != DROPPED
    rows = (batch.offsets[:-1, None] + batch.merge_map)[kept]
    return torch.bincount(rows, minlength=len(batch.tokens)).clamp_min(1)


def trace(transmission: Transmission, model: ThreatModel, grid: tuple[int, int]) -> Observation:
    """Shows a transmission of the attacker's own images whole: sizes, order and merge map, whatever is granted."""
    batch, state = transmission.received, transmission.state
    return Observation(
        tokens=batch.tokens.detach().float(),
        lengths=batch.lengths,
        prefix=batch.prefix,
        grid=grid,
        sizes=_patches_a_token(batch),
        merge_map=batch.merge_map,
        noise_std=state.noise_std if state is not None and model.knows.channel_state else None,
    )


COPIED_BYTES = 2**31
"""A victim of at most so many bytes is copied for each attack that asks for its weights."""


def _bytes(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def _versions(model: nn.Module) -> tuple[int, ...]:
    """Returns how often each weight was written to."""
    return tuple(tensor._version for tensor in (*model.parameters(), *model.buffers()))


class GrantedView:
    """The attacker's handle under one threat model (see ``leakgauge.harness.contracts.attack.AttackerView``).

    An eavesdropper's own images come to it through its own channel, as the images under attack do.

    Nothing that is scored against can be reached from here through attributes or closures. Python hides nothing from
    code that means to cheat, though: a plug-in can import the task, walk the garbage collector or the frames of its
    callers, or repeat a random stream. Read the code of an attack whose numbers you publish.

    Args:
        victim: The victim.
        defense: The operating point under attack, prepared.
        model: What is granted.
        image_shape: (3, H, W).
        streams: Random streams of the attacker's own transmissions.
        batch_size: Images at a time on the edge.
        device: Where attacks compute.
        preparation: What ``defense`` was prepared with; None where it needs no preparation.
        cached: Looks the tokens of the attacker's own images up before the edge has to run.
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
        preparation: Preparation | None = None,
        cached: Cached = compute_anew,
    ) -> None:
        self._victim, self._defense, self._model = victim, defense, model
        self._streams, self._batch_size, self._preparation = streams, batch_size, preparation
        self.image_shape, self.grid, self.device = image_shape, defense.grid, device
        self._cached = cached
        own = Line("own", defense, eavesdropping_channel(model, defense), streams, batch_size, cached)
        self._lines = {"own": own}
        self._handed: dict[str, tuple[Transmission, Observation]] = {}
        self._copy: Victim | None = None
        self._found: tuple[int, ...] = ()
        self.noisy = own.noisy

    def anew(self) -> GrantedView:
        """Returns a view for another attack: tokens are shared, what is handed out of them is not.

        Attacks may write into all that they are given; none of it reaches another.
        """
        twin = copy(self)
        twin._handed, twin._copy = {}, None
        twin._found = _versions(self._victim.model) if self._model.victim == "white-box" else ()
        return twin

    def _hand_out(
        self, what: str, images: ImageSet, sent: Transmission, look: Callable[[], Observation]
    ) -> Observation:
        """Returns a copy of an observation, the same one until another draw is asked for."""
        key = f"{what} {images.digest()}"
        if key not in self._handed or self._handed[key][0] is not sent:
            self._handed[key] = (sent, look().clone())
        return self._handed[key][1]

    def observe(self, images: ImageSet, draw: int = 0) -> Observation:
        """Transmits the attacker's images once more, cut down to what the threat model grants."""
        sent = self._own.transmission(images, draw)

        def look() -> Observation:
            rng = self._streams.child("observer", draw if self.noisy else 0)
            seen = observe(sent, self._model, self.grid, None, rng)
            return seen if self._model.adaptive else self._as_under_attack(seen, images)

        return self._hand_out("observe", images, sent, look)

    @property
    def _own(self) -> Line:
        """What the attacker sends its own images through: the operating point, or the undefended pipeline."""
        return self._lines["own"] if self._model.adaptive else self._plain_line

    def _as_under_attack(self, seen: Observation, images: ImageSet) -> Observation:
        """Shows beside undefended tokens what is seen beside those under attack: sizes, and whether some come first."""
        attacked = observe(
            self._lines["own"].transmission(images.select([0]), 0), self._model, self.grid, None, self._streams
        )
        sizes = torch.ones(len(seen.tokens), dtype=torch.long)
        return replace(seen, prefix=attacked.prefix, sizes=None if attacked.sizes is None else sizes)

    def trace(self, images: ImageSet, draw: int = 0) -> Observation:
        """Returns what ``observe`` does of this draw, in the edge's order, with sizes and merge map."""
        self._need_white_box("watch where the patches of its own images go")
        sent = self._own.transmission(images, draw)
        return self._hand_out("trace", images, sent, lambda: trace(sent, self._model, self.grid))

    def unreduced(self, images: ImageSet, draw: int = 0) -> Observation:
        """Transmits the attacker's images without reduction and perturbation."""
        self._need_white_box("run the edge without its reduction")
        sent = self._plain_line.transmission(images, draw)
        return self._hand_out("unreduced", images, sent, lambda: trace(sent, self._model, self.grid))

    @property
    def _plain_line(self) -> Line:
        """The pipeline without reduction and perturbation."""
        if "unreduced" not in self._lines:
            self._lines["unreduced"] = self._without_reduction()
        return self._lines["unreduced"]

    def _without_reduction(self) -> Line:
        """Prepares the unreduced sibling as the operating point was; only now, because it may take a training."""
        sibling = ablatable(self._defense).unreduced()
        if sibling.needs_calibration:
            if self._preparation is None:
                raise PluginError(
                    "the unreduced sibling needs calibration images, the operating point did not",
                    where=f"defense {self._defense.name!r}",
                    hint="let `needs_calibration` of both agree",
                )
            sibling.prepare(*self._preparation)
        streams = self._streams.child("unreduced")
        return Line("unreduced", sibling, self._lines["own"].eavesdropping, streams, self._batch_size, self._cached)

    def branch(self) -> GrantedView:
        """Returns a view of the same grants that keeps to itself what it caches from now on."""
        twin = copy(self)
        twin._cached = compute_anew
        twin._handed = dict(self._handed)
        twin._lines = {name: line.branch() for name, line in self._lines.items()}
        return twin

    def predict(self, images: Tensor) -> Tensor:
        """Queries the victim on images (B, 3, H, W) in [0, 1]."""
        if self._model.victim == "none":
            raise self._denied("query the victim")
        with torch.no_grad():
            return self._victim.predict(images)

    def white_box(self) -> Victim:
        """Hands out a copy of the victim: whoever trains it does not train that of others.

        One too large to be held twice is handed out itself; ``check_victim`` tells whether it was changed.
        """
        self._need_white_box("see the victim's weights")
        if self._copy is None:
            self._copy = self._victim
            if _bytes(self._victim.model) <= COPIED_BYTES and not hasattr(self._victim.model, "hf_device_map"):
                self._copy = replace(self._victim, model=deepcopy(self._victim.model))
        return self._copy

    def check_victim(self) -> None:
        """Checks that the victim is as it was before this attack.

        Raises:
            SpoiledError: The attack wrote into it, so that nothing that is measured with it from now on counts.
        """
        if self._copy is self._victim and _versions(self._victim.model) != self._found:
            raise SpoiledError(
                "an attack wrote into the victim's weights, which are too large to be copied",
                where=f"threat model {self._model.name!r}",
                hint="let it copy what it changes; the same command goes on from the last good cell",
            )

    def edge_tokens(self, images: Tensor) -> TokenBatch:
        """Runs the edge without reduction on images (B, 3, H, W) in [0, 1]; gradients reach them."""
        self._need_white_box("see the victim's weights")
        return differentiable(self._defense).edge_tokens(images)

    def _need_white_box(self, what: str) -> None:
        if self._model.victim != "white-box":
            raise self._denied(what)

    def _denied(self, what: str) -> AccessDeniedError:
        return AccessDeniedError(
            f"the attack tried to {what}, which its threat model does not grant",
            where=f"threat model {self._model.name!r}",
            hint="declare it in the attack's knowledge and grant it in the threat model",
        )
