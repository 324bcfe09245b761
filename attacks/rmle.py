"""Regularised maximum likelihood: pixels are optimised until the white-box edge yields the tokens that were seen."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from leakgauge.attacks.floors import mean_image
from leakgauge.attacks.white_box.descent import (
    Descent,
    best_rows,
    chunks,
    descend,
    repeated,
    search_failure,
    truth_losses,
)
from leakgauge.attacks.white_box.edge_profile import EdgeProfile, made_up_images
from leakgauge.attacks.white_box.image_priors import energy, patch_seams, total_variation
from leakgauge.attacks.white_box.matching import Distance, Matching
from leakgauge.harness.contracts.attack import Attack, AttackerView
from leakgauge.harness.contracts.declarations import Knowledge
from leakgauge.harness.suite.options import Count, Positive, Weight
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

Start = Literal["noise", "mean", "ridge"]
PROFILE_IMAGES = 512
TRIAL_SHARE = 0.2


class RegularisedMLE(Attack):
    """Minimises distance(E(x), z) + priors over the pixels, from several starts, for every image by itself.

    He et al., ACSAC 2019 (rMLE: squared distance, TV and L2 priors, Adam with AMSGrad at 1e-2, 5000 steps); for ViTs
    after DRAG (ICML 2025): cosine distance a token, learning rate 5e-2, TV 1.5, patch prior 1e-3, gradient clip 1.
    Their defaults are sized for GPUs and unmerged tokens. Ours (assumed): squared distance of standardised tokens, a
    CPU's number of steps with an annealed rate, and all restarts for the first fifth only, after which the one with the
    lowest observation loss goes on. Merged tokens are compared as ``leakgauge.attacks.white_box.matching`` says.

    Restarts draw the same noise for all images, so that an image's result does not depend on its batch mates.

    Args:
        iterations: Steps of the restart that is kept.
        restarts: Starts; the first is ``start``, the others are noise.
        start: What the first restart begins with: ``noise``, the ``mean`` auxiliary image, or ``ridge``, the image that
            a linear map from tokens to pixels paints.
        distance: ``l2`` or ``cosine``, between standardised tokens.
        learning_rate: Of Adam, in pixel values from 0 to 1.
        total_variation: Weight of the TV prior.
        patch_prior: Weight of the prior on steps across patch borders.
        energy: Weight of the L2 prior.
        clip: Largest gradient norm an image.
        place_weight: Weight of a token's likely places in estimating what it stands for.
        batch_size: Images at a time.
    """

    name = "rmle"
    training = "search"
    layout = "finds positions"
    knowledge = Knowledge(victim="white-box")

    def __init__(
        self,
        iterations: Annotated[int, Field(ge=10)] = 400,
        restarts: Count = 3,
        start: Start = "ridge",
        distance: Distance = "l2",
        learning_rate: Positive = 0.03,
        total_variation: Weight = 0.5,
        patch_prior: Weight = 0.1,
        energy: Weight = 0.0,
        clip: Positive = 1.0,
        place_weight: Weight = 1.0,
        batch_size: Count = 16,
    ) -> None:
        self._iterations, self._restarts, self._start = iterations, restarts, start
        self._distance, self._place_weight, self._batch_size = distance, place_weight, batch_size
        self._rate, self._clip = learning_rate, clip
        self._variation, self._seams, self._energy = total_variation, patch_prior, energy

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Takes the measure of the edge; there is nothing to train."""
        self._view = view
        few = torch.linspace(0, len(auxiliary) - 1, min(PROFILE_IMAGES, len(auxiliary))).round().long()
        # A handful of images does not pin down linear maps of some hundred channels.
        enough = len(few) >= 64
        images = auxiliary.select(few) if enough else made_up_images(256, view.image_shape, rng.child("made up"))
        self._profile = EdgeProfile.learn(view, images)
        self._mean = mean_image(auxiliary if len(auxiliary) else images)
        own = auxiliary if len(auxiliary) else images
        self._truth = truth_losses(view, self._matching, own, self._batch_size, rng.child("truth"))
        return None

    def _starts(self, matching: Matching, images: int, rng: Streams) -> Tensor:
        """Returns the first candidates (restarts * B, 3, H, W), one restart after the other."""
        shape = self._view.image_shape
        starts = []
        for restart in range(self._restarts):
            kind = self._start if restart == 0 else "noise"
            if kind == "ridge":
                starts.append(self._profile.guess(matching.placed()[:images]))
                continue
            image = self._mean.to(self._view.device)
            if kind == "noise":
                # Smooth noise about grey: high frequencies die out slowly where the edge hardly sees them.
                draw = torch.randn(1, 3, *self._profile.grid, generator=rng.child("start", restart).torch())
                image = interpolate(0.5 + 0.1 * draw, size=shape[1:], mode="bilinear")[0].to(image)
            starts.append(image.expand(images, -1, -1, -1))
        return torch.cat(starts).clamp(0.0, 1.0)

    def _matching(self, observations: Observation) -> Matching:
        return Matching(self._profile, observations, distance=self._distance, place_weight=self._place_weight)

    def _penalty(self, images: Tensor) -> Tensor:
        """Returns the priors' cost (B,) of images (B, 3, H, W)."""
        cost = self._variation * total_variation(images) + self._seams * patch_seams(images, self._profile.grid)
        return cost + self._energy * energy(images)

    def _descend(self, matching: Matching, start: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
        """Descends from ``start``: images, their losses, and the losses at every step."""
        pixels = start.clone().requires_grad_(True)

        def project() -> None:
            with torch.no_grad():
                pixels.clamp_(0.0, 1.0)

        how = Descent(iterations, self._rate, self._clip)
        return descend(self._view, matching, [pixels], lambda: pixels, self._penalty, how, project)

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Optimises every image; restarts and iterates are chosen by the observation loss alone."""
        rebuilt, history, reached, estimated = [], [], [], False
        trial = max(1, round(TRIAL_SHARE * self._iterations))
        for part in chunks(observations, self._batch_size, self._view):
            matching = self._matching(repeated(part, self._restarts))
            estimated |= matching.estimated
            start = self._starts(matching, len(part), rng)
            tried, losses, _ = self._descend(matching, start, trial)
            rows = best_rows(losses, self._restarts)
            images, ended, path = self._descend(self._matching(part), tried[rows], self._iterations - trial)
            rebuilt.append(images.cpu())
            history.append(path)
            reached.append(ended.cpu())
        self.caveat = search_failure(torch.cat(history, dim=1), torch.cat(reached), self._truth, estimated=estimated)
        return torch.cat(rebuilt)
