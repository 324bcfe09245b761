"""Commands work where Linux's own calls are missing: macOS tells no affinity, Windows has neither fcntl nor fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ELSEWHERE = """
import os, sys

for name in ("sched_getaffinity", "process_cpu_count", "fork", "getuid"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[name] = None
if __name__ == "__main__":
    from leakgauge.harness.cli import main

    main()
"""


def elsewhere(tmp_path, *arguments):
    script = tmp_path / "elsewhere.py"
    script.write_text(ELSEWHERE)
    places = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places)), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["list", "attacks"], ["show", "attack", "ridge"]])
def test_what_computes_nothing_works(tmp_path, arguments):
    done = elsewhere(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_works_and_is_resumed(tmp_path):
    command = ["run", "smoke", "--out", "run", "--set", "attacks=[floor_mean]", "--set", "evaluation_images=4"]
    for _ in range(2):
        done = elsewhere(tmp_path, *command)
        assert done.returncode == 0, done.stderr
        assert "2 cells: 0 failed" in done.stdout
