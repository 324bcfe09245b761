"""SARA for merged payloads: learns from the merge maps of its own images where merged tokens came from."""

from __future__ import annotations

from torch import Tensor, nn

from leakgauge.attacks.networks.set_network import SetNetwork
from leakgauge.attacks.set_decoder import SetDecoder
from leakgauge.attacks.training.loop import Forward, Source
from leakgauge.attacks.training.withheld import like_seen
from leakgauge.harness.contracts.attack import AttackerView
from leakgauge.harness.contracts.declarations import Knowledge
from leakgauge.harness.suite.options import Count, Positive, Weight
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.observation import Observation


class SaraMerged(SetDecoder):
    """The set decoder with its soft unmerge supervised: which token did each patch go to?

    Ours. SARA (Leggio et al. 2026) learns positions on unmerged tokens, one position a token. Here a token may belong
    to many positions: every position picks its token, with cross-entropy against the merge map, which whoever holds
    the victim's weights can watch on images of its own. Placement and decoder are trained together.

    Args:
        steps: Optimiser steps.
        batch_size: Images a step.
        width: Channels.
        layers: Decoder layers.
        heads: Attention heads.
        peak_lr: Learning rate of AdamW after warm-up.
        muon: Learning rate of Muon, which moves the hidden matrices, over AdamW's; 0 for AdamW alone.
        position_weight: Weight of the cross-entropy of positions, in nats, beside the pixel loss.
        double_check: Whether to run the step-doubling check, for three eighths more time; without it every result is
            inconclusive.
    """

    name = "sara_merged"
    knowledge = Knowledge(victim="white-box")

    def __init__(
        self,
        steps: Count = 3200,
        batch_size: Count = 32,
        width: Count = 128,
        layers: Count = 2,
        heads: Count = 4,
        peak_lr: Positive = 4e-3,
        muon: Weight = 2.0,
        position_weight: Weight = 0.1,
        double_check: bool = True,
    ) -> None:
        super().__init__(steps, batch_size, width, layers, heads, peak_lr, muon, double_check)
        self._position_weight = position_weight

    def _training_data(self, view: AttackerView, auxiliary: ImageSet) -> Source:
        """Returns own transmissions with their merge map, and otherwise as little as is seen under attack."""
        return lambda draw: like_seen(view.trace(auxiliary, draw), view.observe(auxiliary, draw))

    def _forward(self) -> Forward:
        """Adds how badly positions were guessed."""
        weight = self._position_weight

        def forward(network: nn.Module, observed: Observation) -> tuple[Tensor, Tensor | None]:
            assert isinstance(network, SetNetwork)
            images, miss = network.supervised(observed)
            return images, weight * miss

        return forward
