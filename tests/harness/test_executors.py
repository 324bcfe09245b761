"""Workers: those of a killed run do not work on for nobody."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.run.executors import run_jobs

SLEEPERS = """
import time
from leakgauge.harness.run.executors import run_jobs

if __name__ == "__main__":
    run_jobs(time.sleep, [(600,), (600,)], 2, lambda: None)
"""


def children(pid: int) -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
def test_workers_end_when_the_run_is_killed(tmp_path):
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, script], env=environment)
    # Two workers and the tracker of their shared resources.
    until(lambda: len(children(process.pid)) == 3)
    workers = children(process.pid)
    time.sleep(3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def work(folder: Path, how: str) -> None:
    """Leaves a file, fails, or dies."""
    if how == "die":
        os._exit(3)
    if how == "fail":
        raise ConfigError("it failed", where="here", hint="mend it")
    (folder / how).touch()


def test_what_fails_or_dies_is_told_and_the_others_go_on(tmp_path):
    told, jobs = list[Exception](), [(tmp_path, how) for how in ("die", "fail", "one", "two", "three")]
    run_jobs(work, jobs, 2, lambda: None, told.append)
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two", "three"}
    assert sorted(type(error).__name__ for error in told) == ["BrokenProcessPool", "ConfigError"]
    [failed] = [error for error in told if isinstance(error, ConfigError)]
    assert (failed.what, failed.where, failed.hint) == ("it failed", "here", "mend it")


def test_without_anyone_to_tell_the_first_failure_ends_all(tmp_path):
    with pytest.raises(ConfigError, match="it failed"):
        run_jobs(work, [(tmp_path, "fail"), (tmp_path, "one")], 2, lambda: None)
    with pytest.raises(BrokenProcessPool, match="all workers died"):
        run_jobs(work, [(tmp_path, "die")] * 2 + [(tmp_path, "two")], 2, lambda: None, lambda error: None)
    assert not (tmp_path / "two").exists()
