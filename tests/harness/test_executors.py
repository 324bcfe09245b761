"""Workers: those of a killed run do not work on for nobody."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
