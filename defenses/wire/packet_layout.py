"""What the counts of a packet may be: against one another, and against what its receiver knows of the victim."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leakgauge.harness.errors import PayloadError
from leakgauge.harness.values.tokens import DROPPED

DAMAGED = "the payload is damaged or truncated; send it again"
OTHER_SENDER = "give both ends the same version, victim, codec, options and calibration"


class Known(NamedTuple):
    """What a receiver knows of the victim before any packet; no claim of one may go beyond it.

    Args:
        prefix: Protected tokens at the start of every image.
        width: Channels a token.
        patches: Source patches an image. Every unprotected token stands for one at least.
    """

    prefix: int
    width: int
    patches: int


class Layout(NamedTuple):
    """The counts of a packet; ``protected`` of its tokens come first and have no size of their own."""

    tokens: int
    first: int
    total: int
    width: int
    prefix: int

    @property
    def protected(self) -> int:
        """Tokens of the packet that are protected ones of the image."""
        return min(max(self.prefix - self.first, 0), self.tokens)

    @property
    def elsewhere(self) -> int:
        """Unprotected tokens of the image that are not in this packet."""
        return self.total - self.prefix - (self.tokens - self.protected)

    def check_against(self, known: Known) -> None:
        """Raises PayloadError where the counts go beyond what the receiver knows."""
        if self.prefix != known.prefix:
            raise payload_error(f"{self.prefix} protected tokens, not {known.prefix}", OTHER_SENDER)
        if self.width != known.width:
            raise payload_error(f"tokens of {self.width} channels, not {known.width}", OTHER_SENDER)
        if self.total - self.prefix > known.patches:
            raise payload_error(f"{self.total - self.prefix} tokens for {known.patches} patches", OTHER_SENDER)

    def check(self, hint: str) -> None:
        """Raises PayloadError where the counts contradict one another."""
        if self.width < 1:
            raise payload_error("tokens without channels", hint)
        if self.first + self.tokens > self.total:
            raise payload_error(f"tokens {self.first} to {self.first + self.tokens} of {self.total}", hint)
        if self.prefix > self.total:
            raise payload_error(f"{self.total} tokens, but {self.prefix} are protected", hint)


def payload_error(what: str, hint: str) -> PayloadError:
    """Returns the error of a payload: what is wrong, and the mend."""
    return PayloadError(what, where="payload", hint=hint)


def check_order(order: NDArray[np.int64], layout: Layout, hint: str) -> None:
    """Raises PayloadError unless the positions are distinct and inside the image: a permutation, if it is whole."""
    outside = bool(((order < 0) | (order >= layout.total)).any())
    if len(order) != layout.tokens or outside or len(np.unique(order)) != len(order):
        raise payload_error("the order is no permutation of the image's tokens", hint)


def check_map(merge_map: NDArray[np.int64], sizes: NDArray[np.int64] | None, layout: Layout, hint: str) -> None:
    """Raises PayloadError unless patches point at the image's unprotected tokens, as many at each as its size."""
    kept = merge_map[merge_map != DROPPED]
    if bool(((kept < layout.prefix) | (kept >= layout.total)).any()):
        raise payload_error("the merge map points outside its image", hint)
    counted = np.bincount(kept, minlength=layout.total)
    if bool((counted[layout.prefix :] < 1).any()):
        raise payload_error("the merge map leaves a token without patches", hint)
    here = counted[layout.first + layout.protected : layout.first + layout.tokens]
    if sizes is not None and bool((here != sizes).any()):
        raise payload_error("token sizes disagree with the merge map", hint)
