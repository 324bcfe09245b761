"""Every attack takes the tokens of a vision-language model: after the tower, within it, and after the projector."""

from __future__ import annotations

import pytest
import torch

from leakgauge.benchmarks.tasks.drawn_scenes.scenes_vqa import ScenesVqa
from leakgauge.defenses.vqa.pipeline import VqaPipeline
from leakgauge.harness.contracts.probing import AttributeProbe, IdentityProbe
from leakgauge.harness.measurement.attacker_view import GrantedView, observe
from leakgauge.harness.measurement.transmitting import transmit_all
from leakgauge.harness.suite.registry import create
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.seeding import Streams

CPU, RNG = torch.device("cpu"), Streams(0, ("vqa", "attacks"))
MODEL = ThreatModel(victim="white-box", knows={"merge_map": True})
MERGE = {"reduction": {"name": "threshold", "thresholds": 0.9}}
PLACES = {
    "tower": MERGE,
    "within the tower": {**MERGE, "cut": 3},
    "projector": {**MERGE, "projector_on_edge": True},
}
TINY = {"steps": 6, "width": 16, "layers": 1}
SPECS = [
    {"name": "floor_mean"},
    {"name": "floor_nearest"},
    {"name": "ridge"},
    {"name": "conv_inverse", "epochs": 1, "channels": [8]},
    {"name": "set_decoder", **TINY},
    {"name": "cascade"},
    {"name": "cascade_merged", **TINY},
    {"name": "sara_merged", **TINY},
    {"name": "source_map_oracle", **TINY},
    {"name": "sara", "steps": 6, "channels": [8], "predictor_steps": 5, "imputer_steps": 5, "assignment": "hungarian"},
    {"name": "transfer", "attack": {"name": "set_decoder", **TINY}},
    {"name": "surrogate", "steps": 6, "batch_size": 8, "width": 16, "layers": 1},
    {"name": "rmle", "iterations": 12, "restarts": 2, "start": "mean"},
    {"name": "deep_image_prior", "iterations": 12, "widths": [8, 16]},
    {"name": "attribute_probe", "attribute": "background", "epochs": 2, "width": 16},
    {"name": "metadata_only", "attribute": "background", "rounds": 2},
    {"name": "reidentification"},
]


@pytest.fixture(scope="module")
def seen():
    """For each place the view of the attacker, and what it observes of three scenes."""
    task = ScenesVqa()
    found = {}
    for place, options in PLACES.items():
        pipeline = VqaPipeline(task.victim(), CPU, **options)
        images = task.split("evaluation").select(range(3))
        sent = pipeline.send(transmit_all(pipeline, images, RNG, 8), RNG)
        output = pipeline.respond(sent, task.questions(images))
        view = GrantedView(
            task.victim(), pipeline, MODEL, image_shape=(3, 64, 64), streams=RNG.child(place), batch_size=8, device=CPU
        )
        found[place] = view, observe(sent, MODEL, pipeline.grid, output, RNG)
    return found


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec["name"])
def test_every_attack_takes_them(seen, place, spec):
    task = ScenesVqa()
    view, observation = seen[place]
    auxiliary = task.split("calibration").select(range(0, 144, 4))
    attack = create("attacks", spec["name"], {k: v for k, v in spec.items() if k != "name"})
    if isinstance(attack, AttributeProbe):
        attack.fit(view, auxiliary, task.attributes(auxiliary)["background"], 3, RNG)
        assert attack.predict(observation, RNG).shape == (3, 3)
        return
    attack.fit(view, auxiliary, RNG)
    if isinstance(attack, IdentityProbe):
        scores = attack.rank(observation, view, task.split("evaluation").select(range(3)), RNG)
        assert scores.argmax(dim=1).tolist() == [0, 1, 2]
        return
    images = attack.reconstruct(observation, RNG)
    assert images.shape == (3, 3, 64, 64)
    assert bool(torch.isfinite(images).all())


def test_reports_of_tokens_differ_by_place(seen):
    widths = {place: observation.tokens.shape[1] for place, (_, observation) in seen.items()}
    assert widths == {"tower": 160, "within the tower": 160, "projector": 192}
    prefixes = {place: observation.prefix for place, (_, observation) in seen.items()}
    assert prefixes == {"tower": 0, "within the tower": 1, "projector": 0}


def test_metadata_of_one_class_alone_name_it(seen):
    view, observation = seen["tower"]
    auxiliary = ScenesVqa().split("calibration").select(range(30))
    probe = create("attacks", "metadata_only", {"attribute": "background", "rounds": 2})
    probe.fit(view, auxiliary, torch.ones(30, dtype=torch.long), 3, RNG)
    assert probe.predict(observation, RNG).tolist() == [[0.0, 1.0, 0.0]] * 3
