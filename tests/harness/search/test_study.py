"""Searches resume as if nothing had happened, and write what a suite can use."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time

import optuna
import pandas as pd
import pytest
from search_spaces import CPU, prepared, searched
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.harness.errors import ConfigError, FailedCellsError, LeakgaugeError, ResourceError, StoreError
from leakgauge.harness.search.results.front import front_of, read_front
from leakgauge.harness.search.results.output import hypervolumes, write_results
from leakgauge.harness.search.sampling.samplers import make_sampler
from leakgauge.harness.search.study import run_search
from leakgauge.harness.search.trials.storage import Reclaimer, open_storage, open_study, sqlite_url
from leakgauge.harness.search.trials.trials import Tried, failures, finished, tried
from leakgauge.harness.suite.schema import OperatingPoint, parse_suite

OTHERS = ["tpe", "nsga2", "gp_screened", "sweep", "line"]


def drawn(records):
    return [record.params for record in records]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
@pytest.mark.parametrize("sampler", ["random", "gp", *(pytest.param(one, marks=pytest.mark.slow) for one in OTHERS)])
def test_a_resumed_search_is_the_uninterrupted_one(tmp_path, sampler):
    whole_ready, whole = searched(tmp_path / "whole", sampler=sampler, trials=7, warm_start=2)
    searched(tmp_path / "parts", sampler=sampler, trials=4, warm_start=2)
    # A process that was killed leaves a trial that counts as running.
    study = open_study(
        open_storage(sqlite_url(tmp_path / "parts")), whole_ready.study_name, whole_ready.objectives.directions
    )
    study.sampler = make_sampler(whole_ready.space, whole_ready.schedule)
    study.ask(whole_ready.schedule.distributions())
    _, parts = searched(tmp_path / "parts", sampler=sampler, trials=7, warm_start=2)
    assert drawn(parts) == drawn(whole)
    assert [r.metrics for r in parts] == [r.metrics for r in whole]
    assert [r.number for r in parts] == [0, 1, 2, 3, 5, 6, 7]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_objectives_have_their_names_and_a_database_without_them_is_taken_up(tmp_path):
    ready, whole = searched(tmp_path / "whole", trials=4)
    study = open_study(open_storage(sqlite_url(tmp_path / "whole")), ready.study_name, ready.objectives.directions)
    assert study.metric_names == list(ready.space.objectives)
    searched(tmp_path / "earlier", trials=2)
    with sqlite3.connect(tmp_path / "earlier" / "trials.db") as database:
        assert database.execute("delete from study_system_attributes where key = 'study:metric_names'").rowcount == 1
    _, resumed = searched(tmp_path / "earlier", trials=4)
    assert drawn(resumed) == drawn(whole)
    assert [r.metrics for r in resumed] == [r.metrics for r in whole]


@pytest.mark.parametrize("sampler", ["gp", "gp_screened", "nsga2", "tpe"])
def test_the_warm_start_comes_first(tmp_path, sampler):
    ready, records = searched(tmp_path, sampler=sampler, trials=4, warm_start=3)
    assert drawn(records)[:3] == ready.schedule.warm_start(3)


@pytest.mark.slow
def test_seeds_matter_where_there_is_chance(tmp_path):
    first, other = (searched(tmp_path / str(seed), seed=seed)[1] for seed in (0, 1))
    assert drawn(first) != drawn(other)


def test_results_are_operating_points_of_a_suite(tmp_path):
    ready, records = searched(tmp_path, choices={"codec": ["float16", {"name": "uniform", "bits": 6}]})
    front = write_results(ready, Tried(records, []), tmp_path)
    assert front == read_front(tmp_path / "front.json")
    suite = {"name": "s", "task": "photos", "attacks": ["floor_mean"], "defense": front.defense.model_dump()}
    data = json.loads((tmp_path / "front.json").read_text())
    points = parse_suite({**suite, "operating_points": data["operating_points"]}).operating_points
    assert points == front.operating_points
    assert [OperatingPoint.model_validate(p).name for p in data["operating_points"]] == [p.name for p in front.points]
    tables = {name: pd.read_csv(tmp_path / f"{name}.csv") for name in ("trials", "front", "hypervolume")}
    assert len(tables["trials"]) == len(tables["hypervolume"]) == 4
    assert tables["front"]["front_point"].tolist() == [p.name for p in front.points]
    volumes = tables["hypervolume"]["hypervolume"]
    assert volumes.is_monotonic_increasing
    assert volumes.iloc[-1] == pytest.approx(ready.objectives.hypervolume([p.metrics for p in front.points]))


def test_each_channel_has_a_front_of_its_own(tmp_path):
    channels = [{"name": "awgn", "snr_db": 0}, {"name": "awgn", "snr_db": 20}]
    ready, records = searched(tmp_path, sampler="sweep", choices={"channel": channels})
    kept = front_of(records, ready.objectives)
    assert {record.channel.options["snr_db"] for record in kept} == {0, 20}
    assert hypervolumes(records, ready.objectives)[-1] > 0


def test_constraints_reach_optuna_and_the_front(tmp_path):
    limit = {"metric": "payload_bytes", "at_most": 15000}
    ready, records = searched(tmp_path, sampler="sweep", constraints=[limit])
    assert [r.feasible for r in records] == [r.metrics["payload_bytes"] <= 15000 for r in records]
    assert {r.feasible for r in records} == {True, False}
    study = open_study(open_storage(sqlite_url(tmp_path)), ready.study_name, ready.objectives.directions)
    kept = [trial.constraints["payload_bytes at_most"] for trial in study.trials]
    assert kept == [r.metrics["payload_bytes"] - 15000 for r in records]
    assert all(record.feasible for record in front_of(records, ready.objectives))


def test_infeasible_constraints_are_one_line(tmp_path):
    ready, records = searched(tmp_path, constraints=[{"metric": "payload_bytes", "at_most": 1}])
    with pytest.raises(ConfigError, match="no trial of 4 keeps all limits; the nearest exceeds payload_bytes at_most"):
        write_results(ready, Tried(records, []), tmp_path)
    assert (tmp_path / "trials.csv").is_file()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "no database address"),
        ("sqlite:////no/such/folder/x.db", "unable to open database file"),
        ("oracle+nothing://x", "driver is not installed"),
    ],
)
def test_a_database_out_of_reach_is_one_line(url, said):
    with pytest.raises(LeakgaugeError, match=said) as caught:
        open_storage(url)
    assert "\n" not in str(caught.value)


def test_a_folder_is_for_one_search(tmp_path):
    searched(tmp_path, trials=2)
    with pytest.raises(StoreError, match="another space, data or seed"):
        searched(tmp_path, trials=2, seed=1)
    # Another process holds the folder; it says so, and ends when it is killed.
    hold = (
        "import sys, time; from pathlib import Path; from leakgauge.harness.system.files.locking import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(StoreError, match="another leakgauge is at work"):
        run_search(prepared(trials=2), tmp_path, CPU, 1, None, lambda done, total: None)
    other.kill()
    other.wait()
    run_search(prepared(trials=2), tmp_path, CPU, 1, None, lambda done, total: None)


def test_a_trial_that_fails_keeps_its_reason_and_the_search_goes_on(tmp_path, monkeypatch):
    ready = prepared(trials=4, warm_start=0)
    measure, calls = ready.evaluator.measure, []

    def sometimes(options, channel, share=1.0):
        calls.append(options)
        if len(calls) == 2:
            sys.exit(0)
        if len(calls) == 3:
            raise ValueError("no \ud800 luck")
        return measure(options, channel, share)

    monkeypatch.setattr(ready.evaluator, "measure", sometimes)
    study = run_search(ready, tmp_path, CPU, 1, None, lambda done, total: None)
    records, failed = tried(study)
    assert [record.number for record in records] == [0, 3]
    assert [one.number for one in failed] == [1, 2]
    assert "tried to end the program" in failed[0].reason
    assert "ValueError" in failed[1].reason
    # A failed trial keeps its place: what comes after it draws as it would have.
    monkeypatch.setattr(ready.evaluator, "measure", measure)
    _, whole = searched(tmp_path / "whole", trials=4, warm_start=0)
    assert drawn(records) == [drawn(whole)[0], drawn(whole)[3]]
    write_results(ready, Tried(records, failed), tmp_path)
    assert list(pd.read_csv(tmp_path / "failed_trials.csv")["trial"]) == [1, 2]


def test_lack_of_memory_ends_a_search_and_a_further_call_goes_on(tmp_path, monkeypatch):
    def short(*arguments):
        raise MemoryError

    ready = prepared(trials=2)
    with monkeypatch.context() as patch:
        patch.setattr(ready.evaluator, "measure", short)
        with pytest.raises(ResourceError, match="out of memory"):
            run_search(ready, tmp_path, CPU, 1, None, lambda done, total: None)
    study = run_search(ready, tmp_path, CPU, 1, None, lambda done, total: None)
    assert len(finished(study)) == 2
    assert not failures(study)


FRESH = """
import sys
from leakgauge.harness.search.trials.storage import open_storage, open_study
from optuna.study import StudyDirection
sys.stdin.readline()
open_study(open_storage(sys.argv[1]), "one", [StudyDirection.MAXIMIZE])
"""


def test_searches_on_one_fresh_database_make_it_once(tmp_path):
    url = sqlite_url(tmp_path)
    started = [
        subprocess.Popen([sys.executable, "-c", FRESH, url], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    errors = []
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        errors.append(process.communicate(timeout=200)[1])
    assert [process.returncode for process in started] == [0, 0, 0], errors


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_what_a_dead_worker_of_a_shared_database_ran_is_tried_again(tmp_path):
    ready = prepared()
    study = open_study(open_storage(sqlite_url(tmp_path), grace_s=1), ready.study_name, ready.objectives.directions)
    study.sampler = make_sampler(ready.space, ready.schedule)
    lost = study.ask(ready.schedule.distributions())
    study._storage.create_new_trial(study._study_id)  # killed before it gave a sign of life
    reclaim = Reclaimer(grace_s=1)
    reclaim(study)
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "RUNNING"]
    time.sleep(2.5)
    reclaim(study)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL", "WAITING"]
    assert study.trials[2].params == lost.params


def test_too_many_trials_for_a_gaussian_process():
    with pytest.raises(ConfigError, match="more than the 300"):
        prepared(sampler="gp", trials=301)


def test_the_command_line(tmp_path, monkeypatch):
    from search_spaces import small

    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(small().model_dump(mode="json", exclude_none=True)))
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["search", str(path), "--out", str(out), "--trials", "3", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert (out / "figures" / "front.svg").is_file()
    chosen = CliRunner().invoke(app, ["choose", str(out / "front.json"), "--max-bytes", "30000"])
    assert chosen.exit_code == 0
    assert '"thresholds"' in chosen.output
    assert optuna.logging.get_verbosity() >= optuna.logging.ERROR
    assert "tokens" in chosen.output, "communication is told in tokens beside bytes"
    by_tokens = CliRunner().invoke(app, ["choose", str(out / "front.json"), "--max-tokens", "1"])
    assert "has tokens" in str(by_tokens.exception)
    none = CliRunner().invoke(app, ["choose", str(out / "front.json"), "--max-bytes", "1"])
    assert "no point qualifies" in str(none.exception)


def test_an_extra_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_integration", None)
    with pytest.raises(ConfigError, match=r"pip install 'leakgauge\[botorch\]'"):
        prepared(sampler="botorch")


@pytest.mark.parametrize("empty", [False, True])
def test_a_search_misses_its_trials_where_they_are_taken_away(tmp_path, empty):
    ready = prepared(trials=3)
    path = tmp_path / "trials.db"

    def take(done, total):
        if done == 1:
            path.unlink()
            if empty:
                path.touch()

    with pytest.raises(StoreError, match=r"taken away while it was searching|the database failed"):
        run_search(ready, tmp_path, CPU, 1, None, take)
    path.unlink(missing_ok=True)
    study = run_search(ready, tmp_path, CPU, 1, None, lambda done, total: None)
    assert len(finished(study)) == 3


def test_a_database_that_fails_is_named_though_optuna_hides_it(tmp_path, monkeypatch):
    """A full disk, for one: what Optuna raises is an assertion, and the cause stands behind it."""
    ready = prepared(trials=2)

    def masked(*_, **__):
        try:
            raise OperationalError("UPDATE", {}, sqlite3.OperationalError("database or disk is full"))
        finally:
            raise AssertionError("Should not reach.")

    monkeypatch.setattr(optuna.study.Study, "optimize", masked)
    with pytest.raises(StoreError, match="the database failed: OperationalError"):
        run_search(ready, tmp_path, CPU, 1, None, lambda done, total: None)


def test_a_search_that_measures_again_fails_where_cells_do(tmp_path, monkeypatch):
    from search_spaces import small

    def refuse(*_):
        raise FailedCellsError("1 of 2 cells failed")

    path, out = tmp_path / "mine.yaml", tmp_path / "out"
    space = {**small().model_dump(mode="json", exclude_none=True), "remeasure": {"attacks": ["floor_mean"]}}
    path.write_text(json.dumps(space))
    (out / "evaluation").mkdir(parents=True)

    def remeasured(*_):
        (out / "dominance.csv").write_text("other,relation\n")
        return out / "front_measured.csv"

    monkeypatch.setattr("leakgauge.harness.cli.search.remeasure_front", remeasured)
    monkeypatch.setattr("leakgauge.harness.cli.search.check_none_failed", refuse)
    done = CliRunner().invoke(
        app, ["search", str(path), "--out", str(out), "--trials", "2", "--device", "cpu", "--remeasure"]
    )
    assert isinstance(done.exception, FailedCellsError), done.output
