"""The attacker's own transmissions through one defense."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

from leakgauge.harness.contracts.defense import Defense
from leakgauge.harness.contracts.link import Channel, Encoded, Transmission
from leakgauge.harness.measurement.transmitting import send, transmit_all
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams

Cached = Callable[[str, Callable[[], Encoded]], Encoded]
"""Returns what the edge sent for a named set of images: what was kept under that name, or what is computed now."""


def compute_anew(name: str, compute: Callable[[], Encoded]) -> Encoded:
    """Keeps nothing: runs the edge."""
    return compute()


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
