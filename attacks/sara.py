"""SARA: learns on unmerged tokens where a token belongs, imputes what is missing, and decodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from leakgauge.attacks.networks.grid_network import GridNetwork
from leakgauge.attacks.networks.imputer import FeatureImputer, imputation_loss
from leakgauge.attacks.networks.positions import Assignment, PositionPredictor, lay, position_loss
from leakgauge.attacks.training.layout import on_grid, patches_of, token_statistics
from leakgauge.attacks.training.loop import Rebuild, Schedule, hold_out, predict, train, train_part
from leakgauge.harness.contracts.attack import Attack, AttackerView
from leakgauge.harness.contracts.declarations import Knowledge
from leakgauge.harness.suite.options import Count, KeptShare, Positive, Widths
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

HEADS = 4
WidthOfHeads = Annotated[int, Field(ge=HEADS, multiple_of=HEADS)]
"""Channels that the attention heads share evenly."""
START_IMAGES = 2048


class Pipeline(nn.Module):
    """Predict positions, lay tokens, impute the rest, decode.

    Args:
        predictor: Says where tokens belong.
        imputer: Fills empty positions.
        decoder: Paints a full grid.
        assignment: How tokens are laid.
    """

    def __init__(
        self, predictor: PositionPredictor, imputer: FeatureImputer, decoder: GridNetwork, assignment: Assignment
    ) -> None:
        super().__init__()
        self.predictor, self.imputer, self.decoder, self.assignment = predictor, imputer, decoder, assignment

    def forward(self, observations: Observation) -> Tensor:
        """Returns images (B, 3, H, W), not clamped; neither order nor sizes are used."""
        tokens, mask = observations.as_batch().padded()
        laid = lay(self.predictor(tokens, mask), tokens, mask, self.assignment)
        return self.decoder.decode(self.imputer(laid.tokens, laid.filled))


class Sara(Attack):
    """Position predictor, feature imputer and convolutional decoder, all trained on unmerged tokens.

    Leggio et al. 2026, Position Matters. Published for a ViT-B: predictor of width 384 with 2 encoder layers, learning
    rate 1e-4, 20 epochs; masked autoencoder of 4 layers, 1e-4, 10 epochs; convolutions 768-256-128-64-32-3, MSE, 1e-3,
    20 epochs. The defaults here are sized for a CPU and a small victim (ours, tuned on its attacker split): larger
    learning rates make up for fewer epochs. Ours too: the decoder starts from the ridge solution, the predictor sees
    random subsets of the tokens, and one class more than there are positions takes protected tokens.

    The learning curve is the decoder's, measured through the whole pipeline on received payloads: the strength that
    the attack really has.

    Args:
        steps: Optimiser steps of the decoder.
        batch_size: Images a step.
        channels: Width of the decoder after each doubling of resolution.
        peak_lr: Learning rate of the decoder after warm-up.
        predictor_steps: Optimiser steps of the position predictor.
        predictor_width: Its channels.
        predictor_layers: Its encoder layers.
        predictor_lr: Its learning rate after warm-up.
        least_kept: Smallest share of the tokens that it is shown in training.
        imputer_steps: Optimiser steps of the imputer.
        imputer_width: Its channels.
        imputer_layers: Its layers.
        imputer_lr: Its learning rate after warm-up.
        assignment: How tokens are laid: ``argmax`` (the most confident wins) or ``hungarian``.
        double_check: Whether to run the step-doubling check of predictor, imputer and decoder together, for three
            eighths more time; without it every result is inconclusive.
    """

    name = "sara"
    layout = "finds positions"
    # Positions are supervised, not found out on the way.
    least_steps = 300
    knowledge = Knowledge(victim="white-box")

    def __init__(
        self,
        steps: Count = 400,
        batch_size: Count = 32,
        channels: Widths = (32, 24, 16),
        peak_lr: Positive = 3e-3,
        predictor_steps: Count = 400,
        predictor_width: WidthOfHeads = 96,
        predictor_layers: Count = 2,
        predictor_lr: Positive = 2e-3,
        least_kept: KeptShare = 0.2,
        imputer_steps: Count = 400,
        imputer_width: WidthOfHeads = 96,
        imputer_layers: Count = 2,
        imputer_lr: Positive = 2e-3,
        assignment: Assignment = "argmax",
        double_check: bool = True,
    ) -> None:
        self._channels, self._assignment = list(channels), assignment
        self._schedule = Schedule(steps, batch_size, peak_lr, warmup_steps=min(50, max(1, steps // 10)))
        self._predictor = Schedule(predictor_steps, batch_size, predictor_lr)
        self._predictor_size = {"width": predictor_width, "layers": predictor_layers, "heads": HEADS}
        self._least_kept = least_kept
        self._imputer = Schedule(imputer_steps, batch_size, imputer_lr)
        self._imputer_size = {"width": imputer_width, "layers": imputer_layers, "heads": HEADS}
        self._double_check = double_check

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Trains predictor, imputer and decoder on the attacker's own images, unreduced."""
        own = view.unreduced(auxiliary)
        mean, std = token_statistics(own)
        positions = view.grid[0] * view.grid[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.child("init").entropy())
            predictor = PositionPredictor(mean, std, positions, **self._predictor_size)
            imputer = FeatureImputer(mean, std, positions, **self._imputer_size)
            decoder = GridNetwork(mean, std, view.image_shape, view.grid, self._channels, skip=True)
        rows, device = hold_out(auxiliary, rng).train, view.device

        def source(draw: int) -> Observation:
            return view.unreduced(auxiliary, draw)

        earlier_predictors = train_part(
            predictor,
            source,
            rows,
            self._predictor,
            lambda network, observed, draws: position_loss(network, observed, self._least_kept, draws),
            rng.child("predictor"),
            device,
            double_check=self._double_check,
        )
        earlier_imputers = train_part(
            imputer,
            source,
            rows,
            self._imputer,
            lambda network, observed, draws: imputation_loss(network, observed, (0.1, 0.8), draws),
            rng.child("imputer"),
            device,
            double_check=self._double_check,
        )
        decoder.start_from_ridge(self._pairs(own, auxiliary, rows[:: max(1, len(rows) // START_IMAGES)], view))
        self._device = device

        def through(predictor: nn.Module, imputer: nn.Module) -> Rebuild:
            def rebuild(network: nn.Module, seen: Observation) -> Tensor:
                assert isinstance(predictor, PositionPredictor)
                assert isinstance(imputer, FeatureImputer)
                assert isinstance(network, GridNetwork)
                return predict(Pipeline(predictor, imputer, network, self._assignment), seen, device)

            return rebuild

        curve = train(
            decoder,
            view,
            auxiliary,
            self._schedule,
            mse_loss,
            rng,
            training_data=source,
            rebuild=through(predictor, imputer),
            rebuild_earlier=[through(*parts) for parts in zip(earlier_predictors, earlier_imputers, strict=True)],
            double_check=self._double_check,
        )
        self._pipeline = Pipeline(predictor, imputer, decoder, self._assignment)
        return curve

    @staticmethod
    def _pairs(
        own: Observation, auxiliary: ImageSet, rows: Tensor, view: AttackerView
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields tokens and the patches that they came from."""
        for part in torch.split(rows, 128):
            patches = patches_of(auxiliary.select(part).images(), view.grid)
            yield on_grid(own.select(part)).flatten(0, 1), patches.flatten(0, 1)

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Runs the pipeline on every observation."""
        return predict(self._pipeline, observations, self._device)
