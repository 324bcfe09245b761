"""Several processes on one database: the death of one costs its running trial, and the study ends complete."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pandas as pd
import pytest
from postgres import missing, server
from search_spaces import CPU, prepared, small

from leakgauge.harness.search.study import run_search
from leakgauge.harness.search.trials.storage import open_storage, open_study, sqlite_url
from leakgauge.harness.search.trials.trials import finished

pytestmark = pytest.mark.slow
SHORT = {"LEAKGAUGE_SEARCH_GRACE_S": "3"}


@pytest.fixture(scope="module")
def database():
    reason = missing()
    if reason:
        pytest.skip(reason)
    with server() as url:
        yield url


def test_local_workers_share_a_file(tmp_path):
    ready = prepared(trials=6)
    study = run_search(ready, tmp_path, CPU, 2, None, lambda done, total: None)
    records = finished(study)
    assert len(records) in {6, 7}  # both may have begun the last one
    assert len({str(record.params) for record in records}) == len(records)


def test_a_local_worker_killed_costs_one_trial_and_the_other_ends_the_study(tmp_path, monkeypatch):
    for name, value in SHORT.items():
        monkeypatch.setenv(name, value)
    ready, killed = prepared(trials=12), list[int]()

    def progress(done: int, total: int) -> None:
        if done >= 3 and not killed:
            [victim, *_] = multiprocessing.active_children()
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    study = run_search(ready, tmp_path, CPU, 2, None, progress)
    states = [trial.state.name for trial in study.trials]
    assert killed
    assert 12 <= states.count("COMPLETE") <= 13
    assert states.count("FAIL") <= 1
    assert states.count("RUNNING") == states.count("WAITING") == 0


def _start(path: Path, out: Path, url: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "leakgauge.harness.cli", "search", str(path), "--out", str(out), "--storage", url]
    environment = {**os.environ, **SHORT, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--device", "cpu"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_a_worker_killed_costs_one_trial_and_the_study_ends_complete(tmp_path, database):
    space = small(name="shared", trials=40)
    path = tmp_path / "shared.yaml"
    path.write_text(json.dumps(space.model_dump(mode="json", exclude_none=True)))
    ready = prepared(name="shared", trials=40)
    study = open_study(open_storage(database), ready.study_name, ready.objectives.directions)
    workers = [_start(path, tmp_path / f"worker{i}", database) for i in range(3)]
    victim = workers[0]
    try:
        deadline = time.monotonic() + 200
        while len(finished(study)) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(victim.pid, signal.SIGKILL)
        for worker in workers[1:]:
            output, _ = worker.communicate(timeout=250)
            assert worker.returncode == 0, output.decode()
    finally:
        for worker in workers:
            worker.kill()
    states = [trial.state.name for trial in study.trials]
    assert 40 <= states.count("COMPLETE") <= 42
    assert states.count("FAIL") <= 1
    assert states.count("RUNNING") == states.count("WAITING") == 0


def test_a_wrong_database_name_is_one_line(database):
    from leakgauge.harness.errors import StoreError

    with pytest.raises(StoreError, match='database "nowhere" does not exist') as caught:
        open_storage(database.removesuffix("postgres") + "nowhere")
    assert "\n" not in str(caught.value)


def test_a_server_that_is_down_is_one_line(database):
    from leakgauge.harness.errors import StoreError

    with pytest.raises(StoreError, match="refused") as caught:
        open_storage("postgresql://tester:secret@127.0.0.1:1/postgres")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_search_killed_outright_resumes_as_if_nothing_had_happened(tmp_path):
    path = tmp_path / "kill.yaml"
    space = small(name="kill", trials=12, sampler="tpe")
    path.write_text(json.dumps(space.model_dump(mode="json", exclude_none=True)))

    def start(out: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "leakgauge.harness.cli", "search", str(path), "--out", str(tmp_path / out)]
        return subprocess.Popen([*command, "--device", "cpu"], env={**os.environ, "OMP_NUM_THREADS": "1"})

    ready = prepared(name="kill", trials=12, sampler="tpe")
    killed = start("killed")
    database = tmp_path / "killed" / "trials.db"
    deadline = time.monotonic() + 100
    while not database.is_file() or _finished(ready, tmp_path / "killed") < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    assert 4 <= _finished(ready, tmp_path / "killed") < 12
    for out in ("killed", "whole"):
        assert start(out).wait(200) == 0
    tables = [
        pd.read_csv(tmp_path / out / "trials.csv").drop(columns=["trial", "front_point"]) for out in ("killed", "whole")
    ]
    pd.testing.assert_frame_equal(*tables)


def _finished(ready, out: Path) -> int:
    """Counts finished trials; 0 while the database is being made."""
    try:
        study = optuna.load_study(study_name=ready.study_name, storage=sqlite_url(out))
    except Exception:
        return 0
    return len(finished(study))
