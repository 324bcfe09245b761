"""Scoring a finished run again: refused, by the name of what differs, where it would not be by what measured it."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from toy_task import Toy, register

from leakgauge.harness.errors import DataError
from leakgauge.harness.run import rescoring
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.rescoring import rescore
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.values.images import ImageSet

CPU = torch.device("cpu")
SUITE = {
    "name": "scored_again",
    "task": "toy",
    "defense": {"name": "split_pipeline", "cut": 1},
    "operating_points": [{"name": "undefended"}],
    "attacks": ["floor_mean"],
    "metrics": ["psnr_db"],
    "judge": "victim",
    "evaluation_images": 4,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunFolder:
    with pytest.MonkeyPatch.context() as patch:
        register(patch, tasks_toy="toy_task:Toy")
        plan = prepare(parse_suite(SUITE), CPU)
        return run_suite(plan, tmp_path_factory.mktemp("runs") / "run", CPU, 1, lambda done, total: None)


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> RunFolder:
    register(monkeypatch, tasks_toy="toy_task:Toy")
    shutil.copytree(finished.path, tmp_path / "run", ignore=shutil.ignore_patterns(".lock"))
    return RunFolder(tmp_path / "run")


def other_weights(patch):
    victim = Toy.victim
    patch.setattr(Toy, "victim", lambda self: replace(victim(self), weights_hash="retrained"))


def other_version(patch):
    patch.setattr(Toy, "version", 2)


def other_split(patch, name, change):
    split = Toy.split
    patch.setattr(Toy, "split", lambda self, asked: change(split(self, asked)) if asked == name else split(self, asked))


def negative(images):
    return ImageSet.from_pixels(255 - images.pixels, images.labels, images.groups)


def other_images(patch):
    other_split(patch, "evaluation", negative)


def other_training(patch):
    other_split(patch, "attacker", negative)


def other_pixels(patch):
    """Under the names of before, as no task of ours would."""
    other_split(patch, "evaluation", lambda images: replace(images, pixels=255 - images.pixels))


def other_code(patch):
    code = rescoring.scoring_code
    patch.setattr(rescoring, "scoring_code", lambda suite: {**code(suite), "leakgauge.harness": "edited"})


PICTURES = "the evaluation images are not the originals that the run keeps"
CHANGES = {
    "weights": (other_weights, ["another victim's weights: none, now retrained"]),
    "task": (other_version, ["another task or its version: toy v1, now toy v2"]),
    "images": (other_images, ["another evaluation images: ", PICTURES]),
    "training images": (other_training, ["another split attacker: "]),
    "pixels": (other_pixels, [PICTURES]),
    "code": (other_code, ["other code: leakgauge.harness ("]),
}


def files(run):
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("what", CHANGES)
def test_what_differs_is_named_and_nothing_is_scored(run, monkeypatch, what):
    change, said = CHANGES[what]
    change(monkeypatch)
    before = files(run)
    with pytest.raises(DataError) as caught:
        rescore(run, CPU)
    start, _, differs = caught.value.what.partition(": ")
    assert start == "not what the run was scored with"
    assert [found[: len(words)] for found, words in zip(differs.split("; "), said, strict=True)] == said
    assert files(run) == before


def test_by_what_measured_it_a_run_scores_as_before(run):
    before = run.cells()
    assert rescore(run, CPU) == 1
    assert run.cells().equals(before)
    assert [session["differs"] for session in run.manifest()["scored_again"]] == [[]]


def test_what_differed_stands_in_the_run_where_it_was_scored_all_the_same(run, monkeypatch):
    [key] = run.done()
    code = run.read_part(key).head.code
    other_weights(monkeypatch)
    assert rescore(run, CPU, although_changed=True) == 1
    [session] = run.manifest()["scored_again"]
    assert session["differs"] == ["another victim's weights: none, now retrained"]
    assert run.read_part(key).head.code != code, "resumed, such a cell is measured again"
