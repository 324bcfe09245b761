"""The attacker that did not adapt: trained on unreduced tokens, faced with the defense."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.attacks.training.withheld import as_seen
from leakgauge.attacks.wrapped import Wrapped
from leakgauge.harness.contracts.attack import AttackerView
from leakgauge.harness.contracts.declarations import Knowledge
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

COMPARED_IMAGES = 16


class UnreducedView:
    """An attacker's handle whose own images pass the edge unreduced; the rest is that of another view.

    Args:
        view: The view of the defense under attack.
        rng: Shuffles tokens where the threat model withholds their order.
    """

    def __init__(self, view: AttackerView, rng: Streams) -> None:
        self._view, self._rng = view, rng
        self.image_shape, self.grid, self.device, self.noisy = view.image_shape, view.grid, view.device, view.noisy

    def observe(self, images: ImageSet, draw: int = 0) -> Observation:
        """Returns the images' unreduced tokens, with no more beside them than is seen under attack."""
        seen = self._view.observe(images.select([0]), draw)
        return as_seen(self._view.unreduced(images, draw), seen, self._rng.child("shuffle", draw if self.noisy else 0))

    def trace(self, images: ImageSet, draw: int = 0) -> Observation:
        """Returns the unreduced tokens whole: their map is the reduction that this attacker knows."""
        return self._view.unreduced(images, draw)

    def unreduced(self, images: ImageSet, draw: int = 0) -> Observation:
        """Returns the unreduced tokens whole."""
        return self._view.unreduced(images, draw)

    def branch(self) -> UnreducedView:
        """Returns the view once more; what it is asked from now on is forgotten with it."""
        return UnreducedView(self._view.branch(), self._rng)

    def predict(self, images: Tensor) -> Tensor:
        """Queries the victim."""
        return self._view.predict(images)

    def white_box(self) -> Victim:
        """Returns the victim."""
        return self._view.white_box()

    def edge_tokens(self, images: Tensor) -> TokenBatch:
        """Runs the edge on images."""
        return self._view.edge_tokens(images)


class Transfer(Wrapped):
    """Another attack, trained on unreduced tokens: what is left of the leakage if the attacker does not adapt.

    Never proof of privacy: stands beside the attack that adapts. Its learning curve is measured on unreduced tokens.

    Args:
        attack: The attack within: its name, or ``{name: ..., options}``.
    """

    name = "transfer"
    extra = Knowledge(victim="white-box", auxiliary=False)
    adaptive = False

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Fits the attack within to unreduced tokens."""
        few = auxiliary.evenly_spaced(COMPARED_IMAGES)
        self._adapted = torch.equal(view.observe(few).tokens, view.unreduced(few).tokens)
        return self._inner.fit(UnreducedView(view, rng), auxiliary, rng)

    def _take_doubt(self) -> None:
        """Doubts wherever the operating point sends something else than it was trained on."""
        super()._take_doubt()
        if not self._adapted:
            self.caveat = self.caveat or "it was not trained on what this operating point sends: never proof of privacy"
