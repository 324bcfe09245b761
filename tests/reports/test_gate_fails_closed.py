"""Whatever is missing, cut short, doubled or no number in a run or a baseline: the gate never passes it."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from simulated_runs import Simulation, simulated

from leakgauge.harness.errors import LeakgaugeError, StoreError
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.analysis.summary import summarise
from leakgauge.reports.comparison.compare import compare
from leakgauge.reports.gate.baseline import Baseline, baseline_of, read_baseline, write_baseline
from leakgauge.reports.gate.gate import judge
from leakgauge.reports.gate.limits import Limits, parse_limits

JUDGE = parse_limits({"inconclusive": "judge"})
ABSOLUTE = parse_limits({"inconclusive": "judge", "absolute": [{"measure": "leakage", "at_most": 50}]})


@pytest.fixture(scope="module")
def base(written):
    return baseline_of(load_runs([RunFolder(written)])[0])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return Simulation(verdict="inconclusive").write(tmp_path_factory.mktemp("written") / "run").path


@pytest.fixture
def run(tmp_path, written) -> RunFolder:
    return RunFolder(shutil.copytree(written, tmp_path / "run"))


def gate_of(run, base, limits=JUDGE):
    return judge(load_runs([run])[0], base, limits)


def test_the_untouched_run_passes(run, base):
    assert gate_of(run, base).exit_code == 0
    assert gate_of(run, None, ABSOLUTE).exit_code == 0
    assert load_runs([run])[0].faults == ()


def rewritten(run: RunFolder, cells=lambda rows: rows, images=lambda rows: rows) -> RunFolder:
    run.write_tables(cells(run.cells()).to_dict("records"), images(run.images()).to_dict("records"))
    return run


def unscored(name):
    return lambda rows: rows.assign(**{name: np.nan})


def partly_unscored(name):
    return lambda rows: rows.assign(**{name: rows[name].where(rows["image"] != f"{3:016x}")})


def failed(rows):
    lost = (rows["attack"] == "sharp") & (rows["operating_point"] == "merged")
    return rows.assign(status=rows["status"].where(~lost, "failed"), n=rows["n"].where(~lost, 0))


def without_failed(rows):
    return rows[~((rows["attack"] == "sharp") & (rows["operating_point"] == "merged"))]


CASES = {
    "no cells": (lambda rows: rows[:0], lambda rows: rows),
    "no rows at all": (lambda rows: rows[:0], lambda rows: rows[:0]),
    "last cell cut off": (lambda rows: rows[:-1], lambda rows: rows),
    "an attack cut off": (lambda rows: rows[rows["attack"] != "sharp"], lambda rows: rows[rows["attack"] != "sharp"]),
    "no images": (lambda rows: rows, lambda rows: rows[:0]),
    "images cut off": (lambda rows: rows, lambda rows: rows[:-1]),
    "the same images of every cell cut off": (lambda rows: rows, lambda rows: rows[rows["group"] < 40]),
    "and the counts too": (lambda rows: rows.assign(n=40), lambda rows: rows[rows["group"] < 40]),
    "an image changed for another": (lambda rows: rows, lambda rows: rows.replace(f"{3:016x}", f"{99:016x}")),
    "an attack renamed in one table": (lambda rows: rows, lambda rows: rows.replace("sharp", "blunt")),
    "a failed cell": (failed, without_failed),
    **{f"{name} unscored": (lambda rows: rows, unscored(name)) for name in ("leakage", "ssim", "quality", "tokens")},
    **{f"payload {name}": (lambda rows: rows, unscored("payload_bytes")) for name in ("unscored",)},
    **{
        f"{name} unscored on one image": (lambda rows: rows, partly_unscored(name))
        for name in ("ssim", "quality", "payload_bytes", "gflops_total")
    },
}


@pytest.mark.parametrize("case", [name for name in CASES if name != "tokens unscored"])
def test_a_damaged_run_never_passes(case, run, base):
    assert gate_of(rewritten(run, *CASES[case]), base).exit_code == 3


@pytest.mark.parametrize(
    "case", ["no cells", "last cell cut off", "images cut off", "a failed cell", "leakage unscored"]
)
def test_nor_under_limits_on_the_means_alone(case, run):
    assert gate_of(rewritten(run, *CASES[case]), None, ABSOLUTE).exit_code == 3


@pytest.mark.parametrize("table", ["cells", "images"])
def test_a_row_that_occurs_twice_is_refused(table, run):
    def twice(rows):
        return pd.concat([rows, rows[-1:].assign(leakage=99.0)])

    with pytest.raises(StoreError, match="already holds"):
        load_runs([rewritten(run, **{table: twice})])


def test_an_empty_table_file_is_an_error_and_no_pass(run):
    for name in ("cells.csv", "images.parquet"):
        kept = (run.path / name).read_bytes()
        (run.path / name).write_bytes(b"")
        with pytest.raises(StoreError, match=name):
            load_runs([run])
        (run.path / name).write_bytes(kept)


def changed(base: Baseline, **measures) -> dict:
    data = json.loads(base.model_dump_json())
    for point in data["points"]:
        for name, change in measures.items():
            if change is None:
                del point["measures"][name]
            else:
                point["measures"][name] |= change
    return data


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "eight", [8.0]])
def test_a_mean_that_is_no_number_is_no_baseline(base, value):
    for name in ("leakage", "quality", "payload_bytes"):
        with pytest.raises(ValidationError):
            Baseline.model_validate(changed(base, **{name: {"mean": value}}))


def test_a_baseline_that_contradicts_itself_is_refused(tmp_path, base):
    high = changed(base, leakage={"mean": 800.0})  # which 2 % of it would let anything through
    few = {**changed(base), "images": list(base.images[:-1])}
    none, twice = {**changed(base), "points": []}, {**changed(base), "points": changed(base)["points"] * 2}
    bare = changed(base)
    bare["points"][0]["measures"] = {}
    for data in (high, few, none, twice, bare):
        (tmp_path / "b.json").write_text(json.dumps(data))
        with pytest.raises(StoreError):
            read_baseline(tmp_path / "b.json")


@pytest.mark.parametrize("name", ["leakage", "quality", "payload_bytes"])
def test_a_measure_that_the_baseline_lacks_is_not_passed_over(base, run, name):
    gate = gate_of(run, Baseline.model_validate(changed(base, **{name: None})))
    assert gate.exit_code == 3
    assert {c.measure.name for c in gate.checks if c.outcome == "cannot tell"} == {name}
    unchecked = parse_limits({"inconclusive": "judge", "worse_by": {name: None}})
    assert gate_of(run, Baseline.model_validate(changed(base, **{name: None})), unchecked).exit_code == 0


@pytest.mark.parametrize("name", ["leakage", "quality"])
def test_means_alone_do_not_stand_in_for_images(base, run, name):
    gate = gate_of(run, Baseline.model_validate(changed(base, **{name: {"images": None}})))
    assert gate.exit_code == 3


def test_a_baseline_cut_short_does_not_match_the_run(base, run):
    data = changed(base)
    data["images"] = data["images"][:40]
    for point in data["points"]:
        del point["measures"]["leakage_p95"]  # it would be refused: it is no longer that of the images
        for recorded in point["measures"].values():
            if recorded["images"]:
                recorded["images"] = recorded["images"][:40]
                recorded["mean"] = float(np.mean(recorded["images"]))
    gate = gate_of(run, Baseline.model_validate(data))
    assert gate.exit_code == 3
    assert any("20 images of the run are not in the baseline" in check.why for check in gate.checks)


def test_limits_are_numbers():
    for bad in (math.nan, math.inf, True, "no", [1]):
        for limits in ({"worse_by": {"leakage": bad}}, {"absolute": [{"measure": "leakage", "at_most": bad}]}):
            with pytest.raises(LeakgaugeError):
                parse_limits(limits)
    for name in (7, None, ["leakage"], {"a": 1}):
        with pytest.raises(LeakgaugeError):
            parse_limits({"absolute": [{"measure": name, "at_most": 1}]})


def test_faults_of_tables_are_said_everywhere(run, tmp_path):
    whole = simulated(tmp_path / "whole")
    cut = load_runs([rewritten(run, images=lambda rows: rows[:-1])])[0]
    assert any("59 of 60 images" in text for text in summarise(cut, point_rows(cut)).cautions)
    assert any("59 of 60 images" in note for note in compare(whole, cut).notes)


def test_the_written_baseline_is_read_again(tmp_path, base, run):
    write_baseline(base, tmp_path / "b.json")
    assert gate_of(run, read_baseline(tmp_path / "b.json"), Limits(inconclusive="judge")).exit_code == 0
