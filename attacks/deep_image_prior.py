"""Deep image prior: an untrained network draws the image that explains the tokens. Needs no data at all."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from leakgauge.attacks.networks.skip_network import SkipNetwork
from leakgauge.attacks.white_box.descent import Descent, best_rows, chunks, descend, search_failure, truth_losses
from leakgauge.attacks.white_box.edge_profile import EdgeProfile, made_up_images
from leakgauge.attacks.white_box.image_priors import total_variation
from leakgauge.attacks.white_box.matching import Distance, Matching
from leakgauge.harness.contracts.attack import Attack, AttackerView
from leakgauge.harness.contracts.declarations import Knowledge
from leakgauge.harness.suite.options import Count, Positive, Weight, Widths
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

PROFILE_IMAGES = 256


class DeepImagePrior(Attack):
    """Minimises distance(E(G(noise)), z) over the parameters of a small network G, one for every image.

    Ulyanov et al., CVPR 2018: Adam at 1e-2, some thousand steps; as an attack on split inference after He et al. 2020.
    The auxiliary images that every attack is handed are not looked at: the edge is measured on made-up images.

    Args:
        iterations: Steps of Adam.
        restarts: Networks an image, drawn apart; the one with the lowest observation loss is kept.
        distance: ``l2`` or ``cosine``, between standardised tokens.
        learning_rate: Of Adam.
        total_variation: Weight of a TV prior on top of the network's own.
        widths: Channels of each level of the network.
        skip: Channels of its skips.
        place_weight: Weight of a token's likely places in estimating what it stands for.
        batch_size: Images at a time.
    """

    name = "deep_image_prior"
    training = "search"
    layout = "finds positions"
    knowledge = Knowledge(victim="white-box", auxiliary=False)

    def __init__(
        self,
        iterations: Annotated[int, Field(ge=10)] = 600,
        restarts: Count = 1,
        distance: Distance = "l2",
        learning_rate: Positive = 1e-2,
        total_variation: Weight = 0.02,
        widths: Widths = (16, 32, 64),
        skip: Count = 4,
        place_weight: Weight = 1.0,
        batch_size: Count = 16,
    ) -> None:
        self._how = Descent(iterations, learning_rate)
        self._restarts, self._variation = restarts, total_variation
        self._distance, self._place_weight, self._batch_size = distance, place_weight, batch_size
        self._widths, self._skip = tuple(widths), skip

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Takes the measure of the edge with made-up images; there is nothing to train."""
        self._view = view
        images = made_up_images(PROFILE_IMAGES, view.image_shape, rng.child("made up"))
        self._profile = EdgeProfile.learn(view, images)
        self._truth = truth_losses(view, self._matching, images, self._batch_size, rng.child("truth"))
        return None

    def _matching(self, observations: Observation) -> Matching:
        return Matching(self._profile, observations, distance=self._distance, place_weight=self._place_weight)

    def _draw_from(self, observations: Observation, rng: Streams) -> tuple[Tensor, Tensor, Tensor]:
        """Optimises one network for every observation: images, their losses, and the losses at every step."""
        matching = self._matching(observations)
        self._estimated |= matching.estimated
        network = SkipNetwork(len(observations), self._view.image_shape, self._widths, self._skip, rng)
        network.to(self._view.device)
        parameters = list(network.parameters())

        def penalty(images: Tensor) -> Tensor:
            return self._variation * total_variation(images)

        return descend(self._view, matching, parameters, network, penalty, self._how)

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Optimises every image's networks; of these the one with the lowest observation loss answers."""
        rebuilt, history, reached, self._estimated = [], [], [], False
        for part in chunks(observations, self._batch_size, self._view):
            tries = [self._draw_from(part, rng.child("network", restart)) for restart in range(self._restarts)]
            ended = torch.cat([losses for _, losses, _ in tries])
            rows = best_rows(ended, self._restarts)
            reached.append(ended[rows].cpu())
            rebuilt.append(torch.cat([images for images, _, _ in tries])[rows].cpu())
            history.append(torch.cat([path for _, _, path in tries], dim=1)[:, rows.cpu()])
        self.caveat = search_failure(
            torch.cat(history, dim=1), torch.cat(reached), self._truth, estimated=self._estimated
        )
        return torch.cat(rebuilt)
