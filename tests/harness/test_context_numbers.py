"""Which images, seeds and answers numbers rest on: of the context, of a defense's preparation, of an attack."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from toy_task import COUNTS, Toy, register

from leakgauge.harness.contracts.attack import Attack
from leakgauge.harness.measurement import attack_run as attempt
from leakgauge.harness.measurement import exposure as measure
from leakgauge.harness.measurement.attack_run import run_attack
from leakgauge.harness.measurement.auxiliary import auxiliary_images
from leakgauge.harness.measurement.context import RunContext
from leakgauge.harness.measurement.exposure import measure_exposure
from leakgauge.harness.suite.planning import plan
from leakgauge.harness.suite.schema import Auxiliary, ThreatModel, parse_suite

CPU = torch.device("cpu")
SUITE = {
    "name": "s",
    "task": "toy",
    "operating_points": [{"name": "undefended"}, {"name": "merged", "reduction": "none"}],
    "threat_models": [{"name": "server"}],
    "attacks": [{"label": "one", "name": "ridge"}, {"label": "other", "name": "ridge", "penalty": 0.5}],
    "metrics": ["psnr_db"],
}


class Stop(Exception):
    """Raised with what was found."""


@pytest.fixture(scope="module")
def context():
    with pytest.MonkeyPatch.context() as patch:
        register(patch, tasks_toy="toy_task:Toy")
        yield RunContext.build(parse_suite({**SUITE, "batch_size": 7}), CPU)


def test_the_context_holds_the_evaluation_split_and_the_unmodified_victim_s_answers(context):
    images = Toy().split("evaluation")
    assert context.evaluation.ids == images.ids
    with torch.no_grad():
        answers = context.victim.predict(images.images())
        features = context.victim.embed(images.images())
    assert torch.allclose(context.gallery, features, atol=1e-5)
    assert torch.equal(context.top1, answers.argmax(dim=1))
    assert context.quality_base.tolist() == (answers.argmax(dim=1) == images.labels).float().tolist()


def test_bytes_have_the_features_and_answers_of_the_images_they_show(context):
    pixels, order = context.evaluation.pixels, torch.arange(COUNTS["evaluation"]).flip(0)
    with torch.no_grad():
        features = context.victim.embed(context.evaluation.images())
    assert torch.allclose(context.features(pixels), features, atol=1e-5)
    assert torch.allclose(context.gallery, features, atol=1e-5)
    assert context.label_agreement(pixels).tolist() == [1.0] * len(pixels)
    assert torch.equal(context.label_agreement(pixels[order]), (context.top1[order] == context.top1).float())
    assert context.label_agreement(255 - pixels).tolist() != [1.0] * len(pixels)


def test_attackers_get_the_attacker_s_split(context):
    model = ThreatModel(auxiliary=Auxiliary(n=5))
    assert set(auxiliary_images(context.task, model).ids) <= set(Toy().split("attacker").ids)
    assert len(auxiliary_images(context.task, model)) == 5


def exposures(**changes):
    cells = plan(parse_suite({**SUITE, **changes}), "data")
    return {(cell.exposure.point.name, cell.attack.label): cell for cell in cells}


@pytest.mark.parametrize("seed", [0, 3])
def test_a_defense_is_prepared_on_calibration_images_with_the_run_s_seed(context, monkeypatch, seed):
    def prepare(images, rng):
        raise Stop(images.ids, rng)

    monkeypatch.setattr(measure, "build_defense", lambda *a: SimpleNamespace(needs_calibration=True, prepare=prepare))
    with pytest.raises(Stop) as caught:
        measure_exposure(context, exposures(seeds=[seed])["merged", "one"].exposure)
    ids, rng = caught.value.args
    assert ids == Toy().split("calibration").ids
    assert rng.seed == seed


class Told(Attack):
    """Says which stream it was given."""

    name = "told"

    def fit(self, view, auxiliary, rng):
        raise Stop(rng)

    def reconstruct(self, observations, rng):
        raise NotImplementedError


def stream_of(context, monkeypatch, cell):
    monkeypatch.setattr(attempt, "build_attack", lambda named: Told())
    monkeypatch.setattr(
        "leakgauge.harness.scoring.guards.fit", lambda attack, view, auxiliary, rng: attack.fit(view, auxiliary, rng)
    )
    with pytest.raises(Stop) as caught:
        run_attack(context, cell, None, SimpleNamespace(image_shape=(3, 16, 16)), None)
    return caught.value.args[0]


def test_attackers_start_alike_on_every_point_and_otherwise_with_another_seed_or_options(context, monkeypatch):
    cells, others = exposures(), exposures(seeds=[1])
    own = stream_of(context, monkeypatch, cells["undefended", "one"])
    assert own == stream_of(context, monkeypatch, cells["merged", "one"])
    assert own != stream_of(context, monkeypatch, cells["undefended", "other"])
    assert own != stream_of(context, monkeypatch, others["undefended", "one"])
    assert own.seed == 0
