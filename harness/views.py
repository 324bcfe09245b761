"""What an attacker sees: transmissions cut down to the threat model, and a handle for the attacker's own images."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from harness.contracts import Defense, Victim
from harness.errors import AccessDeniedError, ConfigError, PluginError
from harness.images import ImageSet
from harness.link import Channel, Encoded, PacketChannel, Transmission
from harness.observation import Observation
from harness.registry import create
from harness.seeding import Streams
from harness.suite import ThreatModel
from harness.tokens import DROPPED, TokenBatch
from harness.transmitting import transmit_all


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


class Preparation(NamedTuple):
    """What an operating point is prepared with: images of the calibration split, and random streams."""

    calibration: ImageSet
    rng: Streams


Recall = Callable[[str, Callable[[], Encoded]], Encoded]
"""Returns what the edge sent for a named set of images: what was kept under that name, or what is computed now."""


def compute_anew(name: str, compute: Callable[[], Encoded]) -> Encoded:
    """Keeps nothing: runs the edge."""
    return compute()


class _Line:
    """The attacker's own transmissions through one defense. Tokens are computed once, noise is drawn for every draw.

    Args:
        name: Names the defense among those of the view.
        defense: The defense, prepared.
        eavesdropping: The eavesdropper's own channel; None hears the server's.
        streams: Random streams.
        batch_size: Images at a time on the edge.
        recall: Looks tokens up before the edge has to run.
    """

    def __init__(
        self,
        name: str,
        defense: Defense,
        eavesdropping: Channel | None,
        streams: Streams,
        batch_size: int,
        recall: Recall,
    ) -> None:
        self.defense, self.eavesdropping = defense, eavesdropping
        self._name, self._streams, self._batch_size, self._recall = name, streams, batch_size, recall
        self._encoded: dict[str, Encoded] = {}
        self._sent: dict[str, tuple[int, Transmission]] = {}
        heard = eavesdropping or defense.channel
        self.noisy = heard.random or heard.snr_db is not None

    def transmission(self, images: ImageSet, draw: int) -> Transmission:
        """Returns the transmission of a draw: the same object until another draw of these images is asked for."""
        draw = draw if self.noisy else 0
        key = images.digest()
        if key not in self._encoded:
            self._encoded[key] = self._recall(
                f"{self._name} {images.full_digest()}",
                lambda: transmit_all(self.defense, images, self._streams, self._batch_size),
            )
        # One draw only is kept: they are large, and each is used for one epoch.
        if key not in self._sent or self._sent[key][0] != draw:
            # An eavesdropper's noise is its own, not the server's.
            noise = self._streams.child("eavesdropper" if self.eavesdropping else "channel", draw)
            self._sent[key] = (draw, self.defense.send(self._encoded[key], noise, self.eavesdropping))
        return self._sent[key][1]

    def branch(self) -> _Line:
        """Returns a line that starts with what is cached here and keeps to itself what it adds."""
        twin = copy(self)
        twin._recall = compute_anew
        twin._encoded, twin._sent = dict(self._encoded), dict(self._sent)
        return twin


class GrantedView:
    """The attacker's handle under one threat model (see ``harness.contracts.AttackerView``).

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
        recall: Looks the tokens of the attacker's own images up before the edge has to run.
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
        recall: Recall = compute_anew,
    ) -> None:
        self._victim, self._defense, self._model = victim, defense, model
        self._streams, self._batch_size, self._preparation = streams, batch_size, preparation
        self.image_shape, self.grid, self.device = image_shape, defense.grid, device
        self._recall = recall
        self._line = _Line("own", defense, eavesdropping_channel(model, defense), streams, batch_size, recall)
        self._plain: _Line | None = None
        self._observed: dict[str, tuple[Transmission, Observation]] = {}
        self.noisy = self._line.noisy

    def observe(self, images: ImageSet, draw: int = 0) -> Observation:
        """Transmits the attacker's images once more, cut down to what the threat model grants."""
        sent, key = self._own.transmission(images, draw), images.digest()
        if key not in self._observed or self._observed[key][0] is not sent:
            rng = self._streams.child("observer", draw if self.noisy else 0)
            seen = observe(sent, self._model, self.grid, None, rng)
            self._observed[key] = (sent, seen if self._model.adaptive else self._as_under_attack(seen, images))
        return self._observed[key][1]

    @property
    def _own(self) -> _Line:
        """What the attacker sends its own images through: the operating point, or the undefended pipeline."""
        return self._line if self._model.adaptive else self._plain_line

    def _as_under_attack(self, seen: Observation, images: ImageSet) -> Observation:
        """Shows beside undefended tokens what is seen beside those under attack: sizes, and whether some come first."""
        attacked = observe(self._line.transmission(images.select([0]), 0), self._model, self.grid, None, self._streams)
        sizes = torch.ones(len(seen.tokens), dtype=torch.long)
        return replace(seen, prefix=attacked.prefix, sizes=None if attacked.sizes is None else sizes)

    def trace(self, images: ImageSet, draw: int = 0) -> Observation:
        """Returns what ``observe`` does of this draw, in the edge's order, with sizes and merge map."""
        self._need_white_box("watch where the patches of its own images go")
        return trace(self._own.transmission(images, draw), self._model, self.grid)

    def unreduced(self, images: ImageSet, draw: int = 0) -> Observation:
        """Transmits the attacker's images without reduction and perturbation."""
        self._need_white_box("run the edge without its reduction")
        return trace(self._plain_line.transmission(images, draw), self._model, self.grid)

    @property
    def _plain_line(self) -> _Line:
        """The pipeline without reduction and perturbation."""
        if self._plain is None:
            self._plain = self._without_reduction()
        return self._plain

    def _without_reduction(self) -> _Line:
        """Prepares the unreduced sibling as the operating point was; only now, because it may take a training."""
        sibling = self._defense.unreduced()
        if sibling.needs_calibration:
            if self._preparation is None:
                raise PluginError(
                    "the unreduced sibling needs calibration images, the operating point did not",
                    where=f"defense {self._defense.name!r}",
                    mend="let `needs_calibration` of both agree",
                )
            sibling.prepare(*self._preparation)
        streams = self._streams.child("unreduced")
        return _Line("unreduced", sibling, self._line.eavesdropping, streams, self._batch_size, self._recall)

    def branch(self) -> GrantedView:
        """Returns a view of the same grants that keeps to itself what it caches from now on."""
        twin = copy(self)
        twin._recall = compute_anew
        twin._line, twin._observed = self._line.branch(), dict(self._observed)
        twin._plain = None if self._plain is None else self._plain.branch()
        return twin

    def predict(self, images: Tensor) -> Tensor:
        """Queries the victim on images (B, 3, H, W) in [0, 1]."""
        if self._model.victim == "none":
            raise self._denied("query the victim")
        with torch.no_grad():
            return self._victim.predict(images)

    def white_box(self) -> Victim:
        """Hands out the victim."""
        self._need_white_box("see the victim's weights")
        return self._victim

    def edge_tokens(self, images: Tensor) -> TokenBatch:
        """Runs the edge without reduction on images (B, 3, H, W) in [0, 1]; gradients reach them."""
        self.white_box()
        return self._defense.edge_tokens(images)

    def _need_white_box(self, what: str) -> None:
        if self._model.victim != "white-box":
            raise self._denied(what)

    def _denied(self, what: str) -> AccessDeniedError:
        return AccessDeniedError(
            f"the attack tried to {what}, which its threat model does not grant",
            where=f"threat model {self._model.name!r}",
            mend="declare it in the attack's knowledge and grant it in the threat model",
        )
