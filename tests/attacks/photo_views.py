"""Views of the embedded photographs through a pipeline, as attacks get them."""

import torch

from leakgauge.benchmarks.tasks.photo_crops.photos import crop_set
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.harness.measurement.attacker_view import GrantedView, observe
from leakgauge.harness.measurement.transmitting import transmit_all
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

CPU, RNG = torch.device("cpu"), Streams(0)
MERGE = {"reduction": {"name": "threshold", "thresholds": 0.9}}
WHITE_BOX = ThreatModel(victim="white-box")


def few_images() -> ImageSet:
    """308 of the attacker's crops, of all classes."""
    return crop_set("attacker").select(range(0, 6160, 20))


def view_of(victim, model=None, **options) -> GrantedView:
    pipeline = SplitPipeline(victim, CPU, **{"cut": 2, **options})
    return GrantedView(
        victim,
        pipeline,
        model or ThreatModel(),
        image_shape=(3, 64, 64),
        streams=Streams(0, ("attacker",)),
        batch_size=64,
        device=CPU,
    )


def seen_by_attacker(victim, images, model=None, **options) -> Observation:
    pipeline = SplitPipeline(victim, CPU, **{"cut": 2, **options})
    sent = pipeline.send(transmit_all(pipeline, images, RNG, 64), RNG)
    return observe(sent, model or ThreatModel(), pipeline.grid, pipeline.respond(sent), RNG)
