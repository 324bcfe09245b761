"""The cascade for merged payloads whose merge map is withheld: places are learned first, and kept soft."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.attacks.cascade import BATCH, Cascade
from leakgauge.attacks.networks.attention import check_heads
from leakgauge.attacks.networks.set_network import SeekingNetwork
from leakgauge.attacks.set_decoder import pixel_loss
from leakgauge.attacks.training.context_features import laid
from leakgauge.attacks.training.layout import token_statistics
from leakgauge.attacks.training.loop import HELDOUT_IMAGES, Holdout, Schedule, clusters_aside, train
from leakgauge.attacks.training.soft_places import soft_places, softly_laid
from leakgauge.attacks.training.withheld import like_seen
from leakgauge.harness.contracts.attack import AttackerView
from leakgauge.harness.contracts.declarations import Knowledge
from leakgauge.harness.suite.options import Count, Positive, Weight
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

FOR_MAPS = 4
"""One in so many clusters of own images is kept from the training of places, for the maps to be fitted on."""


class CascadeMerged(Cascade):
    """Learns where merged tokens came from, lays them softly, and descends as the cascade does.

    Ours. Places are learned from the merge maps of own images, which whoever holds the victim's weights can watch:
    cross-entropy, and the error of a plain painter so that confusions count by what they cost. Where sizes are sent,
    optimal transport makes every token go to as many patches as it stands for. The maps of the cascade are fitted on
    images that the places were not learned on, so that they see places as uncertain as they are under attack; a guess
    is pushed through the edge, and there its merge map is no secret.

    Args:
        steps: Optimiser steps of the places.
        batch_size: Images a step.
        width: Channels.
        layers: Layers in which positions read the tokens before they claim one.
        heads: Attention heads.
        peak_lr: Learning rate of AdamW after warm-up.
        muon: Learning rate of Muon, which moves the hidden matrices, over AdamW's; 0 for AdamW alone.
        position_weight: Weight of the cross-entropy of positions, in nats, beside the pixel loss.
        double_check: Whether to run the step-doubling check on the places, for three eighths more time; without it
            every result is inconclusive.
        stages: Most stages after the first guess.
        gain_db: Least gain, in dB of PSNR on left-out images, for which a stage is kept.
    """

    name = "cascade_merged"
    training = "learned"
    layout = "finds positions"
    knowledge = Knowledge(victim="white-box")

    def __init__(
        self,
        steps: Count = 2000,
        batch_size: Count = 32,
        width: Count = 96,
        layers: Count = 1,
        heads: Count = 4,
        peak_lr: Positive = 4e-3,
        muon: Weight = 2.0,
        position_weight: Weight = 1.0,
        double_check: bool = True,
        stages: Count = 2,
        gain_db: Weight = 0.05,
    ) -> None:
        super().__init__(stages, gain_db)
        check_heads(width, heads)
        self._schedule = Schedule(steps, batch_size, peak_lr, min(100, max(1, steps // 10)), muon=muon)
        self._size = {"width": width, "layers": layers, "heads": heads}
        self._position_weight, self._double_check = position_weight, double_check

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Learns places on three quarters of the images, and solves the stages on the rest."""
        split = self._parts(auxiliary, rng)
        curve = self._learn_places(view, auxiliary, split, rng.child("places"))
        seen = view.observe(auxiliary).select(split.heldout)
        self._descend(view, auxiliary.select(split.heldout), seen, rng)
        return curve

    def _parts(self, auxiliary: ImageSet, rng: Streams) -> Holdout:
        """Returns which images the places are learned on, and which the maps."""
        kept = clusters_aside(auxiliary, FOR_MAPS, rng.child("parts"))
        return Holdout((~kept).nonzero().squeeze(1), kept.nonzero().squeeze(1))

    def _begun(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> SeekingNetwork:
        """Returns the network that the training of places starts from."""
        mean, std = token_statistics(view.observe(auxiliary))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.child("init").entropy())
            return SeekingNetwork(mean, std, view.image_shape, view.grid, **self._size)

    def _learn_places(self, view: AttackerView, auxiliary: ImageSet, split: Holdout, rng: Streams) -> LearningCurve:
        weight = self._position_weight

        def forward(learner: torch.nn.Module, observed: Observation) -> tuple[Tensor, Tensor | None]:
            assert isinstance(learner, SeekingNetwork)
            images, miss = learner.supervised(observed)
            return images, weight * miss

        every = max(1, len(split.heldout) // HELDOUT_IMAGES)
        self._network = self._begun(view, auxiliary, rng).to(view.device)
        return train(
            self._network,
            view,
            auxiliary,
            self._schedule,
            pixel_loss,
            rng,
            forward=forward,
            training_data=lambda draw: like_seen(view.trace(auxiliary, draw), view.observe(auxiliary, draw)),
            double_check=self._double_check,
            split=Holdout(split.train, split.heldout[::every]),
        )

    def _of_own(self, view: AttackerView, images: ImageSet, draw: int) -> Tensor:
        known = like_seen(view.trace(images, draw), view.observe(images, draw))
        return laid(known, self._scaling).to(view.device)

    def _laid(self, observations: Observation) -> Tensor:
        if observations.merge_map is not None:
            return super()._laid(observations)
        parts = [observations.select(rows) for rows in torch.split(torch.arange(len(observations)), BATCH)]
        places = (soft_places(self._network, part).to(part.tokens.device) for part in parts)
        rows = [softly_laid(part, of, self._scaling) for part, of in zip(parts, places, strict=True)]
        return torch.cat(rows).to(self._view.device)
