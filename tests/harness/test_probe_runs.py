"""Runs with probes: what they are asked, what they get to see, how their answers are scored and judged."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from toy_task import COUNTS, EACH, Toy, register

from leakgauge.harness import cli
from leakgauge.harness.contracts.attack import Attack
from leakgauge.harness.contracts.probing import AttributeProbe, IdentityProbe, kind_of
from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.measurement.auxiliary import auxiliary_images
from leakgauge.harness.measurement.context import RunContext
from leakgauge.harness.measurement.exposure import measure_exposure
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.rescoring import rescore
from leakgauge.harness.run.run_summary import show
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.store.cell_record import RebuiltRecord
from leakgauge.harness.suite.planning import build_attack
from leakgauge.harness.suite.schema import NamedPlugin, ThreatModel, parse_suite
from leakgauge.harness.values.columns import SCORE_NAMES
from leakgauge.harness.values.images import ImageSet

CPU = torch.device("cpu")


def mean_tokens(observations) -> torch.Tensor:
    batch = observations.as_batch()
    sums = torch.zeros(len(batch), batch.tokens.shape[1]).index_add_(0, batch.image_index, batch.tokens)
    return sums / batch.lengths[:, None]


class Centroids(AttributeProbe):
    """Scores classes by the distance to their mean token."""

    name = "centroids"
    training = "search"
    layout = "needs none"

    def __init__(self, attribute: str = "bright") -> None:
        self.attribute = attribute

    def fit(self, view, auxiliary, answers, classes, rng):
        assert answers.shape == (len(auxiliary),)
        self.caveat = None
        means = mean_tokens(view.observe(auxiliary))
        self.centres = torch.stack([means[answers == c].mean(dim=0) for c in range(classes)])

    def predict(self, observations, rng):
        return -torch.cdist(mean_tokens(observations), self.centres)


class Deaf(Centroids):
    """Answers at random."""

    name = "deaf"

    def predict(self, observations, rng):
        return torch.rand(len(observations), len(self.centres), generator=rng.torch())


class Excused(Deaf):
    """Answers at random, and is known to read nothing from the undefended payload."""

    name = "excused"
    proves_on_baseline = False


class Nearest(IdentityProbe):
    """Finds the candidate with the nearest mean token."""

    name = "nearest"
    training = "search"
    layout = "needs none"
    galleries: list[ImageSet] = []  # noqa: RUF012

    def fit(self, view, auxiliary, rng):
        self.caveat = None
        view.observe(auxiliary)

    def rank(self, observations, view, gallery, rng):
        self.galleries.append(gallery)
        return -torch.cdist(mean_tokens(observations), mean_tokens(view.observe(gallery)))


class Undecided(Nearest):
    """Scores all candidates alike."""

    name = "undecided"

    def rank(self, observations, view, gallery, rng):
        assert gallery.digest() not in view._lines["own"]._encoded, (
            "another probe left what it learned of the candidates"
        )
        return torch.zeros(len(observations), len(gallery))


class Broken(IdentityProbe):
    """Ranks too few."""

    name = "broken"

    def fit(self, view, auxiliary, rng):
        pass

    def rank(self, observations, view, gallery, rng):
        return torch.zeros(len(observations), 1)


PROBES = (Centroids, Deaf, Excused, Nearest, Undecided, Broken)
SUITE = {
    "name": "probes",
    "task": "toy",
    "defense": {"name": "split_pipeline", "cut": 1},
    "operating_points": [{"name": "undefended"}, {"name": "noisy", "perturb": [{"name": "gaussian", "strength": 9}]}],
    "threat_models": [{"name": "server", "victim": "query"}],
    "attacks": [
        "floor_mean",
        "ridge",
        "centroids",
        {"label": "of_label", "name": "centroids", "attribute": "label"},
        "deaf",
        "excused",
        "nearest",
        "undecided",
        "broken",
    ],
    "metrics": ["psnr_db"],
}


@pytest.fixture(scope="module", autouse=True)
def _registered():
    with pytest.MonkeyPatch.context() as patch:
        probes = {f"attacks_{probe.name}": f"{__name__}:{probe.__name__}" for probe in PROBES}
        register(patch, tasks_toy="toy_task:Toy", attacks_nothing=f"{__name__}:Toy", **probes)
        yield


@pytest.fixture(scope="module")
def plan(_registered):
    return prepare(parse_suite(SUITE), CPU)


@pytest.fixture(scope="module")
def run(plan, tmp_path_factory):
    return run_suite(plan, tmp_path_factory.mktemp("runs") / "one", CPU, 1, lambda done, total: None)


@pytest.fixture(scope="module")
def cells(run):
    return run.cells().set_index(["operating_point", "attack"])


def test_only_the_broken_probe_fails(cells):
    failed = cells[cells["status"] == "failed"]
    assert set(failed.index.get_level_values("attack")) == {"broken"}
    assert (failed["reason"].str.contains(r"attack 'broken': scores are \(24, 1\), expected \(24, 24\)")).all()


def test_an_attribute_probe_is_scored_by_accuracy_chance_and_area(cells, run):
    row = cells.loc["undefended", "centroids"]
    assert row["attribute"] == "bright"
    assert row["attribute_accuracy"] == row["attribute_auc"] == 1.0
    assert row["attribute_chance"] == 0.5
    assert row["attribute_auc_lo"] == row["attribute_auc_hi"] == 1.0
    assert row[[*SCORE_NAMES, "leakage"]].isna().all()
    assert row["verdict"] == "conclusive"
    assert row["reason"] == ""
    images = run.images()
    of_noisy = images[(images["attack"] == "centroids") & (images["operating_point"] == "noisy")]
    assert of_noisy["attribute_correct"].mean() == cells.loc["noisy", "centroids"]["attribute_accuracy"] < 1
    assert images.loc[images["attack"] == "ridge", "attribute_correct"].isna().all()


def test_the_label_may_be_asked_for(cells):
    row = cells.loc["undefended", "of_label"]
    assert row["attribute"] == "label"
    # All four labels are equally common among the attacker's images: the guess is the first.
    assert row["attribute_chance"] == 0.25
    assert 0 <= row["attribute_auc"] <= 1


def test_an_identity_probe_is_scored_against_a_gallery_of_all(cells):
    row = cells.loc["undefended", "nearest"]
    assert row["reid_top1"] == 1.0
    assert row["attribute"] == ""
    assert row[["attribute_accuracy", "attribute_chance", "attribute_auc", "psnr_db"]].isna().all()
    assert row["verdict"] == "conclusive"
    assert cells.loc["undefended", "undecided"]["reid_top1"] == 0.0, "a tie does not count"


def test_the_gallery_is_shuffled_and_bare(run, plan):
    evaluation = plan.context.evaluation
    for gallery in Nearest.galleries:
        assert gallery.labels is None
        assert gallery.groups is None
        assert sorted(gallery.ids) == sorted(evaluation.ids)
        assert gallery.ids != evaluation.ids
    assert len({gallery.ids for gallery in Nearest.galleries}) == 1, "one order a seed"


def test_probes_that_show_nothing_on_the_undefended_payload_prove_nothing(cells):
    for attack in ("deaf", "undecided"):
        for point in ("undefended", "noisy"):
            assert cells.loc[point, attack]["verdict"] == "inconclusive"
            assert "does not beat chance on the undefended payload" in cells.loc[point, attack]["reason"]
    assert cells.loc["noisy", "excused"]["verdict"] == "conclusive"
    assert cells.loc["noisy", "centroids"]["verdict"] == "conclusive"


def test_reconstructions_agree_with_the_label_or_do_not(cells, run):
    images = run.images()
    for attack in ("floor_mean", "ridge"):
        agreement = images.loc[images["attack"] == attack, "label_agreement"]
        assert set(agreement) <= {0.0, 1.0}
    row = cells.loc["undefended", "ridge"]
    assert row["label_agreement_lo"] <= row["label_agreement"] <= row["label_agreement_hi"]
    assert images.loc[images["attack"] == "nearest", "label_agreement"].isna().all()


def test_only_reconstructions_leave_pictures_and_each_part_names_its_kind(run, plan):
    kinds = {}
    for cell in plan.cells:
        part = run.read_part(cell.key)
        picture = (run.path / "reconstructions" / f"{cell.key}.png").is_file()
        assert picture == isinstance(part, RebuiltRecord)
        kinds[cell.attack.label] = getattr(part, "kind", None)
    stated = {label: entry["kind"] for label, entry in run.manifest()["attacks"].items()}
    assert stated == {**kinds, "broken": "identity"}
    assert kinds["centroids"] == "attribute"
    assert kinds["nearest"] == "identity"


def test_scoring_again_keeps_the_answers_of_probes(run):
    before, images = run.cells(), run.images()
    rescore(run, CPU)
    after = run.cells()
    pd.testing.assert_frame_equal(before, after, atol=1e-5)
    pd.testing.assert_frame_equal(images, run.images(), atol=1e-5)


def test_an_unknown_attribute_is_refused_before_anything_runs():
    probe = {"name": "centroids", "attribute": "brigth"}
    with pytest.raises(
        ConfigError, match=r"attacks: centroids: task 'toy' has no attribute 'brigth' -- known: bright, label"
    ):
        prepare(parse_suite({**SUITE, "attacks": ["floor_mean", probe]}), CPU)


def test_what_is_no_attack_is_refused():
    with pytest.raises(PluginError, match="Toy is no attack"):
        build_attack(NamedPlugin.model_validate("nothing"))


def test_kinds():
    assert [kind_of(probe) for probe in (Centroids(), Nearest(), Toy())] == ["attribute", "identity", None]


class Echo(Attack):
    name = "echo"

    def fit(self, view, auxiliary, rng):
        pass

    def reconstruct(self, observations, rng):
        raise NotImplementedError


def test_kind_of_an_attack():
    assert kind_of(Echo()) == "reconstruction"


@pytest.fixture(scope="module")
def headless(_registered) -> RunContext:
    return RunContext.build(parse_suite({**SUITE, "task": {"name": "toy", "classes": 0}}), CPU)


def test_the_originals_agree_with_themselves(plan):
    assert plan.context.label_agreement(plan.context.evaluation.pixels).tolist() == [1.0] * EACH
    swapped = plan.context.evaluation.pixels.flip(0)
    expected = (plan.context.top1 == plan.context.top1.flip(0)).float()
    assert plan.context.label_agreement(swapped).tolist() == expected.tolist()


def test_features_are_no_classes(headless):
    assert headless.top1 is None
    assert all(math.isnan(value) for value in headless.label_agreement(headless.evaluation.pixels))


def test_without_classes_label_agreement_is_unscored_with_the_reason(tmp_path):
    suite = {**SUITE, "task": {"name": "toy", "classes": 0}, "attacks": ["floor_mean"]}
    run = run_suite(prepare(parse_suite(suite), CPU), tmp_path / "run", CPU, 1, lambda done, total: None)
    cells = run.cells()
    assert cells["label_agreement"].isna().all()
    assert cells["reason"].str.contains("label_agreement unscored: the victim's answer is no vector of classes").all()


def test_the_attacker_s_images_lie_on_memory_of_their_own(plan):
    task = plan.context.task
    assert task.split("attacker").pixels.untyped_storage().nbytes() > task.split("attacker").pixels.nbytes
    found = auxiliary_images(plan.context.task, ThreatModel())
    assert found.pixels.untyped_storage().nbytes() == found.pixels.nbytes
    assert np.array_equal(found.pixels, task.split("attacker").pixels)
    assert len(auxiliary_images(plan.context.task, ThreatModel(auxiliary={"n": 5}))) == 5
    assert len(found) == COUNTS["attacker"]


def test_the_calibration_split_is_loaded_only_where_it_is_needed(plan, monkeypatch):
    asked: list[str] = []
    split = Toy.split
    monkeypatch.setattr(Toy, "split", lambda self, name: (asked.append(name), split(self, name))[1])
    assert measure_exposure(plan.context, plan.cells[0].exposure).point.preparation is None
    assert "calibration" not in asked
    fitted = parse_suite(
        {**SUITE, "defense": {"name": "split_pipeline", "cut": 1, "codec": {"name": "pca", "rank": 4}}}
    )
    exposure = prepare(fitted, CPU).cells[0].exposure
    asked.clear()
    preparation = measure_exposure(plan.context, exposure).point.preparation
    assert asked == ["calibration"]
    assert preparation.rng.path == ("evaluation", "prepare")


def test_the_command_line_shows_answers_in_a_table_of_their_own(run, capsys):
    show(run)
    pictures, answers = capsys.readouterr().out.split("┏")[1:]
    assert "ridge" in pictures
    assert "centroids" not in pictures
    for word in ("centroids", "bright", "re-identified", "1.000"):
        assert word in answers


def test_a_failed_cell_leaves_its_traceback_and_debug_shows_it(run, capsys, monkeypatch):
    failed = run.cells().query("status == 'failed'")
    assert set(failed["attack"]) == {"broken"}
    for key in failed["cell"]:
        assert "Traceback (most recent call last)" in run.read_part(key).traceback
        assert "PluginError" in run.read_part(key).traceback
    assert "broken on undefended failed: " in (run.path / "log").read_text()
    show(run)
    shown = capsys.readouterr()
    assert f"{len(failed)} failed" in shown.out
    assert sum("failed" in line and "broken" in line and "\u2502" in line for line in shown.out.splitlines()) == len(
        failed
    )
    assert "Traceback" not in shown.out + shown.err
    assert "--debug shows them" in shown.out
    monkeypatch.setenv("LEAKGAUGE_DEBUG", "1")
    show(run)
    assert capsys.readouterr().err.count("Traceback (most recent call last)") >= len(failed)


@pytest.mark.parametrize("words", [["--debug", "list", "nothing"], ["list", "nothing", "--debug"]])
def test_debug_may_stand_anywhere(words, monkeypatch, capfd):
    monkeypatch.setenv("LEAKGAUGE_DEBUG", "")
    monkeypatch.setattr("sys.argv", ["leakgauge", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert "unknown group 'nothing'" in err
