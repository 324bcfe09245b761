"""The cascade for merged payloads, its places begun from shipped weights: for the embedded photographs alone."""

from __future__ import annotations

from leakgauge.attacks.cascade_merged import CascadeMerged
from leakgauge.attacks.networks.set_network import SeekingNetwork
from leakgauge.attacks.training.loop import Holdout
from leakgauge.attacks.training.pretrained_places import PLACES_SIZE, for_maps, pretrained_places
from leakgauge.harness.contracts.attack import AttackerView
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.options import Count, Positive, Weight
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams


class CascadePretrained(CascadeMerged):
    """``cascade_merged`` that starts from shipped weights and fine-tunes them through the operating point it attacks.

    The weights were trained over many operating points of task ``photos``, cut 3, on the attacker's split alone;
    ``attacks/pretrained/photos_places.training.json`` says how. They know all of that split but what the maps are
    fitted on, also where a threat model grants fewer images. Its name says so in every table.

    The step-doubling check is on the fine-tuning, which says nothing of the training before. That one was not doubled,
    so that every result is inconclusive by itself, however well it fine-tunes.

    Args:
        steps: Optimiser steps of the fine-tuning.
        batch_size: Images a step.
        peak_lr: Learning rate of AdamW after warm-up.
        muon: Learning rate of Muon, which moves the hidden matrices, over AdamW's; 0 for AdamW alone.
        position_weight: Weight of the cross-entropy of positions, in nats, beside the pixel loss.
        double_check: Whether to run the step-doubling check on the places, for three eighths more time; without it
            every result is inconclusive.
        stages: Most stages after the first guess.
        gain_db: Least gain, in dB of PSNR on left-out images, for which a stage is kept.
    """

    name = "cascade_pretrained"
    caveat = "whether a longer training of its shipped weights would gain was not measured"

    def __init__(
        self,
        steps: Count = 100,
        batch_size: Count = 32,
        peak_lr: Positive = 1e-3,
        muon: Weight = 2.0,
        position_weight: Weight = 1.0,
        double_check: bool = True,
        stages: Count = 2,
        gain_db: Weight = 0.05,
    ) -> None:
        super().__init__(
            steps,
            batch_size,
            peak_lr=peak_lr,
            muon=muon,
            position_weight=position_weight,
            double_check=double_check,
            stages=stages,
            gain_db=gain_db,
            **PLACES_SIZE,
        )

    def _begun(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> SeekingNetwork:
        return pretrained_places(view, auxiliary)

    def _parts(self, auxiliary: ImageSet, rng: Streams) -> Holdout:
        kept = for_maps(auxiliary)
        if bool(kept.all()) or not bool(kept.any()):
            raise ConfigError(
                f"{len(auxiliary)} images are too few: none is left to learn from, or none to fit maps on",
                where="attack 'cascade_pretrained'",
                hint="grant more (auxiliary: {n: ...})",
            )
        return Holdout((~kept).nonzero().squeeze(1), kept.nonzero().squeeze(1))
