"""A victim and images so small that an optimisation attack takes seconds: 16 px, 16 patches of 4 px, 2 blocks."""

from __future__ import annotations

import timm
import torch

from leakgauge.attacks.white_box.edge_profile import made_up_images
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.measurement.attacker_view import GrantedView, observe
from leakgauge.harness.measurement.transmitting import transmit_all
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

CPU, RNG, SHAPE = torch.device("cpu"), Streams(0), (3, 16, 16)
OPEN = ThreatModel(victim="white-box")
BLIND = ThreatModel(victim="white-box", knows={"order": False})
SIGHTED = ThreatModel(victim="white-box", knows={"merge_map": True})
MERGED = {"reduction": {"name": "threshold", "thresholds": 0.9}, "send_sizes": True}


def tiny_victim() -> Victim:
    """As wide as a patch has values, so that an unreduced token tells its patch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(
            "vit_tiny_patch16_224",
            img_size=16,
            patch_size=4,
            embed_dim=48,
            depth=2,
            num_heads=4,
            num_classes=5,
            pretrained=False,
        )
    return Victim(model.eval(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "0" * 16, "tiny")


def pictures(count: int, name: str) -> ImageSet:
    return made_up_images(count, SHAPE, RNG.child(name))


def pipeline_of(victim: Victim, **options) -> SplitPipeline:
    return SplitPipeline(victim, CPU, **{"cut": 2, **options})


def view_of(victim: Victim, model: ThreatModel = OPEN, **options) -> GrantedView:
    return GrantedView(
        victim,
        pipeline_of(victim, **options),
        model,
        image_shape=SHAPE,
        streams=Streams(0, ("attacker",)),
        batch_size=64,
        device=CPU,
    )


def seen_of(victim: Victim, images: ImageSet, model: ThreatModel = OPEN, rng: Streams = RNG, **options) -> Observation:
    pipeline = pipeline_of(victim, **options)
    sent = pipeline.send(transmit_all(pipeline, images, RNG, 64), RNG)
    return observe(sent, model, pipeline.grid, pipeline.respond(sent), rng)
