"""The race of samplers runs, resumes, and compares seed by seed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import leakgauge.benchmarks.studies.search_race as race
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.search.space import load_space

SMALL = ["search_images=8", "calibration.images=4", "defense.cut=2", "reference.quality=0.1", "warm_start=2"]


def run(out, *entrants: str, trials: int = 3):
    import typer

    app = typer.Typer()
    app.command()(race.main)
    options = ["--out", str(out), "--seeds", "2", "--trials", str(trials), "--device", "cpu"]
    options += [text for entrant in entrants for text in ("--sampler", entrant)]
    options += [text for value in SMALL for text in ("--set", value)]
    options += ["--set", "baselines=[]"]
    return CliRunner().invoke(app, options)


@pytest.mark.slow
def test_it_records_draws_and_resumes(tmp_path, monkeypatch):
    done = run(tmp_path, "random", "sweep")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "race.json").read_text())["hypervolume"]
    assert {name: len(values) for name, values in record.items()} == dict.fromkeys(
        ("random/0", "sweep/0", "random/1", "sweep/1"), 3
    )
    assert record["sweep/0"] == record["sweep/1"]
    assert all(values == sorted(values) for values in record.values())
    assert {path.name for path in tmp_path.glob("race.*")} == {"race.json", "race.svg", "race.png"}
    monkeypatch.setattr(race, "run_one", lambda *_: pytest.fail("what is recorded was run again"))
    assert run(tmp_path, "random", "sweep").exit_code == 0


def test_an_entrant_may_go_without_the_warm_start():
    space = load_space("photos")
    assert race.entered(space, "tpe_cold", 3).warm_start == 0
    assert (race.entered(space, "tpe", 3).warm_start, race.entered(space, "tpe", 3).seed) == (10, 3)
    for name in ("random_cold", "annealing"):
        with pytest.raises(ConfigError, match="no entrant"):
            race.entered(space, name, 0)


def test_differences_are_paired_by_seed():
    record = {"a/0": [0.0, 0.3], "b/0": [0.0, 0.2], "a/1": [0.0, 0.9], "b/1": [0.0, 0.8]}
    assert race.paired(record, "a", "b", [0, 1], 2).mean == pytest.approx(0.1)
    assert race.paired(record, "a", "b", [0, 1, 2], 2) is None
