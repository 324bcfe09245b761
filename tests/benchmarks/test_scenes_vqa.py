"""The task of questions about scenes, from the suite to the report."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from leakgauge.benchmarks.tasks.drawn_scenes.scenes_vqa import ScenesVqa
from leakgauge.harness.contracts.questions import QuestionTask
from leakgauge.harness.errors import ConfigError, DataError
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.search.space import load_space
from leakgauge.harness.search.trials.evaluation import Evaluator
from leakgauge.harness.search.trials.memo import Memo
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.reports.writers.html import write_html
from leakgauge.reports.writers.markdown import write_markdown
from leakgauge.reports.writers.tabular import write_csv

CPU = torch.device("cpu")
SUITE = {
    "name": "tiny-vqa",
    "task": "scenes_vqa",
    "defense": {"name": "vqa_pipeline", "codec": "float16"},
    "operating_points": [
        {"name": "undefended"},
        {"name": "merged", "reduction": {"name": "threshold", "thresholds": 0.9}},
        {"name": "fastv", "fastv": {"layer": 1, "keep": 0.25}},
    ],
    "threat_models": [{"name": "server", "victim": "white-box", "auxiliary": {"n": 48}}],
    "attacks": ["floor_mean", "ridge"],
    "evaluation_images": 12,
    "cells": [
        {"operating_points": ["undefended", "merged"]},
        {"operating_points": ["fastv"], "attacks": ["floor_mean"]},
    ],
}


def run_it(folder, **changes):
    plan = prepare(parse_suite({**SUITE, **changes}), CPU)
    return run_suite(plan, folder, CPU, 1, lambda done, of: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    return run_it(tmp_path_factory.mktemp("vqa") / "run")


def test_costs_stand_by_part_and_add_up(run):
    cells = run.cells().set_index(["operating_point", "attack"])
    parts = cells[["gflops_tower", "gflops_projector", "gflops_prefill", "gflops_decoding"]]
    assert (parts > 0).all(axis=None)
    pd.testing.assert_series_equal(parts.sum(axis=1), cells["gflops_total"], check_names=False)
    plain, merged, fastv = (cells.loc[(name, "floor_mean")] for name in ("undefended", "merged", "fastv"))
    assert (cells["questions"] == 5).all()
    assert merged["payload_bytes"] < plain["payload_bytes"] == fastv["payload_bytes"]
    assert merged["gflops_tower"] < plain["gflops_tower"] == fastv["gflops_tower"]
    assert fastv["gflops_prefill"] < plain["gflops_prefill"]
    # Where nothing is merged the edge is the tower.
    assert plain["gflops_edge"] == pytest.approx(plain["gflops_tower"])


def test_quality_stands_by_kind_of_question(run):
    kinds = run.kinds().set_index(["operating_point", "kind"])
    assert {kind for _, kind in kinds.index} == {"count", "colour", "shape", "relation", "existence", "all"}
    cells = run.cells().drop_duplicates("operating_point").set_index("operating_point")
    for point in ("undefended", "merged", "fastv"):
        assert kinds.loc[(point, "all"), "quality"] == pytest.approx(cells.loc[point, "quality"])
        assert kinds.loc[(point, "all"), "questions"] == 60
    assert (kinds.loc["undefended", "change"] == 0).all()
    assert kinds.loc[("merged", "all"), "change"] < 0


def test_the_victim_is_asked_about_reconstructions(run):
    cells = run.cells().set_index(["operating_point", "attack"])
    agreement = cells["label_agreement"]
    assert agreement.notna().all()
    assert agreement[("undefended", "ridge")] > agreement[("undefended", "floor_mean")]


@pytest.mark.slow
def test_the_report_tells_of_questions(run, tmp_path):
    page = write_html([run], tmp_path)[0].read_text(encoding="utf-8")
    text = write_markdown([run], tmp_path)[0].read_text(encoding="utf-8")
    for report in (page, text):
        assert "Quality by kind of question" in report
        assert "Cost by part" in report
    written = {path.name for path in write_csv([run], tmp_path)}
    assert "quality_by_kind.csv" in written
    assert set(pd.read_csv(tmp_path / "quality_by_kind.csv")["run"]) == {"run"}


def test_attributes_are_balanced_and_not_asked_about():
    task = ScenesVqa()
    images = task.split("evaluation")
    for name, classes in (("background", 3), ("tone", 2)):
        counts = torch.bincount(task.attributes(images)[name])
        assert counts.tolist() == [len(images) // classes] * classes
    words = {"background", "warm", "cool", "photograph", "flat", "gradient"}
    assert not any(words & set(one.text.split()) for image_id in images.ids for one in task.asked(image_id))


def test_unknown_images_are_named():
    with pytest.raises(DataError, match="no scene 'elsewhere'"):
        ScenesVqa().asked("elsewhere")


def test_a_suite_with_a_question_too_long_is_refused_before_it_runs(monkeypatch, tmp_path):
    asked = ScenesVqa.asked

    def long(self, image_id):
        first, *rest = asked(self, image_id)
        return (first._replace(text="how many things are there? " * 30), *rest)

    monkeypatch.setattr(ScenesVqa, "asked", long)
    with pytest.raises(DataError, match="context holds 128"):
        prepare(parse_suite(SUITE), CPU)
    with pytest.raises(DataError, match="context holds 128"):
        Evaluator(load_space("scenes-vqa"), CPU, Memo(tmp_path))


def test_a_victim_that_cannot_answer_is_refused(monkeypatch, victim):
    monkeypatch.setattr(ScenesVqa, "victim", lambda self: victim)
    with pytest.raises(ConfigError, match="cannot answer"):
        prepare(parse_suite(SUITE), CPU)


def test_the_floor_that_needs_classes_says_so(tmp_path):
    suite = {"attacks": ["floor_class_mean"], "cells": [{"operating_points": ["undefended"]}], "evaluation_images": 3}
    cells = run_it(tmp_path / "run", **suite).cells()
    assert cells["status"].tolist() == ["failed"]
    assert "no vectors of classes" in cells["reason"][0]


def test_it_is_a_task_of_questions():
    assert issubclass(ScenesVqa, QuestionTask)
