"""What a measurement tells while it goes on, and what is made of it; nothing of it is in a result."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from rich.console import Console
from toy_task import register
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.harness.cli.watch import Watch
from leakgauge.harness.run.expected_time import Timed, clock, expected
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.planning import plan as plan_cells
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.system import standing
from leakgauge.harness.system.standing import (
    Standing,
    standings,
    tell_begun,
    tell_heldout,
    tell_step,
    told_in,
    watched_folder,
)
from leakgauge.harness.values.learning_curve import LearningCurve
from tests.harness.made_records import record

CPU = torch.device("cpu")
SUITE = {
    "name": "told",
    "task": "toy",
    "defense": {"name": "split_pipeline", "cut": 1},
    "operating_points": [{"name": "undefended"}, {"name": "half", "reduction": {"name": "tome", "r": 2}}],
    "attacks": ["floor_mean", {"name": "set_decoder", "steps": 24, "width": 16, "layers": 1}],
    "metrics": ["psnr_db"],
    "judge": "victim",
    "evaluation_images": 4,
}


@pytest.fixture
def toy(monkeypatch):
    register(monkeypatch, tasks_toy="toy_task:Toy")


def test_what_is_told_is_read_until_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(standing, "EVERY_S", 0.0)
    with told_in(tmp_path):
        assert standings(tmp_path) == []
        tell_step(1, 9)  # before anything began: nobody's step
        assert standings(tmp_path) == []
        tell_begun("ridge on merged")
        tell_step(3, 9)
        tell_heldout(4, 9, 17.25)
        tell_step(5, 9)
        (now,) = standings(tmp_path)
        assert (now.doing, now.step, now.steps, now.heldout_psnr_db) == ("ridge on merged", 5, 9, 17.25)
        assert str(now) == "ridge on merged: step 5 of 9, 17.2 dB held out"
        tell_begun("floor_mean on merged")
        assert str(standings(tmp_path)[0]) == "floor_mean on merged"
    assert standings(tmp_path) == []
    tell_begun("nobody watches")
    assert list(tmp_path.iterdir()) == []


def test_steps_of_a_moment_are_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr(standing, "EVERY_S", 1e9)
    with told_in(tmp_path):
        tell_begun("a")
        for step in range(100):
            tell_step(step, 100)
        assert standings(tmp_path)[0].step == 0
        tell_heldout(99, 100, 1.0)
        assert standings(tmp_path)[0].step == 99


def test_a_learning_curve_tells_by_itself(tmp_path):
    with told_in(tmp_path):
        tell_begun("a plug-in of somebody else")
        LearningCurve(40).add(10, 0.5, 12.0)
        assert str(standings(tmp_path)[0]).endswith("step 10 of 40, 12.0 dB held out")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"doing": 1}', '{"doing": "a", "since": 1, "more": 2}', "null"])
def test_what_cannot_be_read_is_passed_over(tmp_path, text):
    (tmp_path / "1.json").write_text(text)
    assert standings(tmp_path) == []
    assert standings(tmp_path / "gone") == []
    assert standings(None) == []


def test_a_folder_that_goes_away_loses_only_the_news(tmp_path):
    with watched_folder() as folder, told_in(folder):
        assert folder is not None
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        tell_begun("a")
        tell_step(1, 2)
        assert standings(folder) == []


def cells(*labels):
    return [
        SimpleNamespace(key=f"{place:016x}", attack=SimpleNamespace(label=label)) for place, label in enumerate(labels)
    ]


def test_time_is_told_by_attack_or_not_at_all():
    left = cells("ridge", "ridge", "decoder")
    known = expected(left, {"ridge": [1.0, 3.0], "decoder": [60.0]})
    assert (known.seconds, known.untimed) == (64.0, 0)
    assert known.told(workers=2, factor=1.5) == "about 0:48 left"
    unknown = expected(left, {"ridge": [1.0, 3.0]})
    assert (unknown.seconds, unknown.untimed) == (4.0, 1)
    assert unknown.told(workers=1) == "time left: not known yet"
    assert expected([], {}).told(workers=1) == "nothing left to measure"
    assert [clock(seconds) for seconds in (0.4, 59.6, 3599, 3725)] == ["0:00", "1:00", "59:59", "1:02:05"]


def test_seconds_are_those_of_the_parts(tmp_path):
    store = RunFolder(tmp_path / "run")
    suite = parse_suite(SUITE)
    planned = plan_cells(suite, "data")
    timed = Timed(store, planned)
    assert timed.by_attack() == {}

    def finished(cell, **part):
        store.write_part(record({"identity": {"cell": cell.key}, "kind": "attribute", **part}))

    floor, decoder = planned[:2]
    finished(floor, attack_seconds=0.5)
    before = timed.stamps()
    assert timed.by_attack() == {"floor_mean": [0.5]}
    assert timed.fresh(before) == 0.0
    finished(decoder, attack_seconds=7.0)
    assert timed.by_attack() == {"floor_mean": [0.5], "set_decoder": [7.0]}
    assert timed.fresh(before) == 7.0, "what earlier sessions measured says nothing of this one's pace"
    finished(floor, attack_seconds=2.5)
    assert timed.fresh(before) == 9.5, "a cell that is measured again is this session's"
    finished(decoder, status="failed", reason="x")
    assert timed.by_attack() == {"floor_mean": [2.5]}


@pytest.mark.parametrize("terminal", [False, True])
def test_a_watch_says_every_minute_what_goes_on(tmp_path, terminal):
    out = Console(file=io.StringIO(), force_terminal=terminal, width=200)
    told = tmp_path / "told"
    told.mkdir()
    watch = Watch(cells("decoder", "decoder"), tmp_path / "run", told, 1, out, line_s=0.05)
    with watch, told_in(told):
        watch.progress(0, 2)
        tell_begun("decoder on merged")
        tell_heldout(7, 20, 11.0)
        deadline = time.monotonic() + 20
        while "11.0 dB held out" not in out.file.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
        watch.progress(1, 2)
    text = out.file.getvalue()
    assert "11.0 dB held out" in text
    if not terminal:
        assert "at 0:00: 0 of 2 cells; decoder on merged: step 7 of 20, 11.0 dB held out; time left: not known" in text
        assert "1 of 2 cells after 0:0" in text
    assert not [thread for thread in threading.enumerate() if thread.name == "leakgauge watch"]


def test_watching_changes_no_number(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(standing, "EVERY_S", 0.0)
    plan = prepare(parse_suite(SUITE), CPU)
    alone = run_suite(plan, tmp_path / "alone", CPU, 1, lambda done, total: None)
    seen: list[str] = []
    with watched_folder() as folder:
        watched = run_suite(
            plan,
            tmp_path / "watched",
            CPU,
            1,
            lambda done, total: seen.extend(map(str, standings(folder))),
            watched=folder,
        )
    times = ["attack_seconds", "latency_ms"]
    pd.testing.assert_frame_equal(alone.cells().drop(columns=times), watched.cells().drop(columns=times))
    pd.testing.assert_frame_equal(alone.images(), watched.images())
    assert any(" on undefended" in line for line in seen)


def test_what_is_next_is_printed(toy, tmp_path):
    (tmp_path / "suite.yaml").write_text(json.dumps({**SUITE, "attacks": ["floor_mean"]}))
    out = tmp_path / "a run"
    done = CliRunner().invoke(app, ["run", str(tmp_path / "suite.yaml"), "--out", str(out), "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == f"next: leakgauge report '{out}' --out '{out}/report'"


def test_a_dry_run_says_what_would_be_done_and_does_nothing(toy, tmp_path):
    (tmp_path / "suite.yaml").write_text(json.dumps(SUITE))
    out = tmp_path / "runs" / "one"
    command = ["run", str(tmp_path / "suite.yaml"), "--out", str(out), "--device", "cpu", "--workers", "1"]

    def dry(*more):
        done = CliRunner().invoke(app, [*command, *more, "--dry-run"])
        assert done.exit_code == 0, done.output
        return done.output

    first = dry()
    assert "would measure 4 of 4 cells, on 2 exposures" in first
    assert "attack set_decoder: 2 cells, never timed here" in first
    assert "time: not known" in first
    assert not out.exists()
    assert not out.parent.exists()
    assert CliRunner().invoke(app, command).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert "would measure 0 of 4 cells" in dry()
    part = next((out / "parts").glob("*.json"))
    text = part.read_bytes()
    part.unlink()
    assert "would measure 1 of 4 cells, on 1 exposures" in dry()
    part.write_bytes(text)
    os.utime(part, ns=(before[part], before[part]))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == {
        path: when for path, when in before.items() if path.is_file()
    }
    command[command.index(str(out))] = str(out.parent / "two")
    beside = dry()
    assert "attack set_decoder: 2 cells, about 0:0" in beside
    assert "by 1 run(s) beside it" in beside
    assert "never timed" in dry("--set", "attacks.set_decoder.steps=30")


def test_a_dry_run_refuses_what_a_run_refuses(toy, tmp_path):
    (tmp_path / "suite.yaml").write_text(json.dumps(SUITE))
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").write_text("mine")
    done = CliRunner().invoke(app, ["run", str(tmp_path / "suite.yaml"), "--out", str(taken), "--dry-run"])
    assert done.exception is not None
    assert "not empty" in str(done.exception)


def test_a_standing_is_one_line():
    assert str(Standing("a", 0.0)) == "a"
