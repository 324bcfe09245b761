"""Comparing two runs: what changed is found, what did not is left alone, what cannot be compared is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulated_runs import Simulation, simulated, suite_of
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.reports.comparison.compare import compare
from leakgauge.reports.comparison.output import compare_frame, compare_markdown, write_comparison


def outcomes(comparison):
    return {(row.place.partition(",")[0], row.measure.name): row.outcome for row in comparison.rows}


def test_a_run_is_identical_to_itself(tmp_path):
    run = simulated(tmp_path / "run")
    found = compare(run, run)
    assert set(outcomes(found).values()) == {"identical"}
    assert not found.notes


def test_what_got_worse_is_found_where_it_did(tmp_path):
    found = compare(simulated(tmp_path / "a"), simulated(tmp_path / "b", seed=1, shift=0.5, payload=300.0))
    outcome = outcomes(found)
    assert outcome["merged", "leakage"] == outcome["merged", "lpips"] == "worse"
    assert outcome["plain", "leakage"] == "no clear change"
    assert outcome["plain", "payload_bytes"] == "better"
    assert outcome["plain", "tokens"] == "identical"
    back = outcomes(compare(simulated(tmp_path / "c", seed=1, shift=0.5), simulated(tmp_path / "d")))
    assert back["merged", "leakage"] == "better"


@pytest.mark.slow
def test_few_of_many_seeds_find_a_change_where_there_is_none(tmp_path):
    """The chance of even one false finding stays near 5 %, over all measures together."""
    base = simulated(tmp_path / "base", noise=1.0)
    false = 0
    for seed in range(1, 31):
        found = compare(base, simulated(tmp_path / str(seed), seed=seed, noise=1.0))
        false += any(row.outcome in {"better", "worse"} for row in found.rows)
    # Binomial(30, 0.05) exceeds 5 with a chance of 0.3 %.
    assert false <= 5


def test_lower_bounds_show_only_one_direction(tmp_path):
    conclusive = simulated(tmp_path / "a")
    more, less = (simulated(tmp_path / str(s), shift=s, verdict="inconclusive") for s in (2.0, -2.0))
    assert outcomes(compare(conclusive, more))["merged", "leakage"] == "worse"
    found = compare(conclusive, less)
    assert outcomes(found)["merged", "leakage"] == "not comparable"
    assert any("only bounds leakage from below" in row.why for row in found.rows)
    assert outcomes(compare(less, conclusive))["merged", "leakage"] == "not comparable"


@pytest.mark.parametrize("name", ["task", "victim", "split_evaluation"])
def test_other_data_are_not_comparable(tmp_path, name):
    data = {"task": "toy v1", "victim": "v1", "split_evaluation": "e1", name: "other"}
    found = compare(simulated(tmp_path / "a"), simulated(tmp_path / "b", data=data))
    assert set(outcomes(found).values()) == {"not comparable"}
    assert found.notes[0].startswith("nothing is comparable: another")


def test_what_only_one_run_holds_is_said(tmp_path):
    base = simulated(tmp_path / "a", suite=suite_of(points=["plain", "merged"]))
    other = simulated(tmp_path / "b", suite=suite_of(points=["plain", "new"], attacks=["flat", "sharp", "odd"]))
    notes = " | ".join(compare(base, other).notes)
    for part in ("only in b: new", "only in a: merged", "attack only in b: odd"):
        assert part in notes
    changed = suite_of(attacks=["flat", {"label": "sharp", "plugin": {"name": "sharp", "steps": 9}}])
    notes = " | ".join(compare(base, simulated(tmp_path / "c", suite=changed)).notes)
    assert "attack sharp differs: sharp in a, sharp (steps 9) in c" in notes


def test_unscored_stays_unscored(tmp_path):
    found = compare(simulated(tmp_path / "a"), simulated(tmp_path / "b", lpips=False))
    row = next(row for row in found.rows if row.measure.name == "lpips")
    assert row.outcome == "not comparable"
    assert row.why == "unscored in the new run"
    assert "unscored" in compare_markdown(found)
    frame = compare_frame(found)
    assert frame.loc[frame["measure"] == "lpips", "new"].isna().all()


def test_the_command_line_and_its_files(tmp_path):
    Simulation().write(tmp_path / "a")
    Simulation(shift=1.0).write(tmp_path / "b")
    result = CliRunner().invoke(
        app, ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    assert "worse" in result.output
    read = pd.read_csv(tmp_path / "out" / "comparison.csv")
    leak = read[(read["measure"] == "leakage") & read["where"].str.startswith("merged")].iloc[0]
    assert leak["change"] == pytest.approx(1.0)
    assert np.isclose(leak["new"] - leak["base"], 1.0)


def test_files_repeat(tmp_path):
    found = compare(simulated(tmp_path / "a"), simulated(tmp_path / "b", shift=1.0))
    first, second = ([p.read_bytes() for p in write_comparison(found, tmp_path / name)] for name in "xy")
    assert first == second


def test_leakage_under_another_threat_model_of_the_same_name_is_not_comparable(tmp_path):
    told = suite_of(threat_models=[{"name": "server", "knows": {"merge_map": True}}])
    found = compare(simulated(tmp_path / "a"), simulated(tmp_path / "b", suite=told, shift=2.0))
    outcome = outcomes(found)
    assert outcome["merged", "leakage"] == outcome["plain", "ssim"] == "not comparable"
    assert outcome["merged", "quality"] == "identical"
    assert any("knows.merge_map false, now true" in row.why for row in found.rows)
    assert any(note.startswith("threat model server grants something else") for note in found.notes)
