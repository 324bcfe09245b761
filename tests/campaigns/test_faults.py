"""A sample of the campaign of faults (``make faults``), and that it tells a fault that a command does not get over.

In this process full disks, removed folders, damaged parts and caches are tried by tests/harness/test_failures.py,
test_token_cache.py and search/test_study.py.
"""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tally import Tally, table
from world import differences

RUN = Path(__file__).parent / "run.py"


@pytest.mark.slow
def test_commands_get_over_a_sample_of_faults():
    done = subprocess.run(
        [sys.executable, str(RUN), "--sample"], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    rows = re.findall(r"^(\S.*?) {2,}(\d+) +(\d+)$", done.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == [
        "kill of run",
        "kill of score",
        "full disk (ENOSPC injected at a file operation)",
        "folder removed under a command",
        "token cache: bit flipped, entries swapped",
        "two processes on what is shared",
        "all",
    ]
    assert all(int(tried) > 0 and failed == "0" for _, tried, failed in rows)


def test_what_differs_is_told():
    rows = pd.DataFrame({"cell": ["a", "b"], "psnr_db": [1.0, float("nan")]})
    left = {"status": "complete", "cells.csv": rows, "parts": ["a", "b"]}
    assert differences(left, {**left, "cells.csv": rows.copy()}) == []
    other = {
        "status": "failed",
        "cells.csv": rows.assign(psnr_db=[1.0, 2.0]),
        "extra": 1,
    }
    assert differences(left, other) == [
        "cells.csv differs: psnr_db",
        "extra is too much",
        "parts is missing",
        "status: failed instead of complete",
    ]
    assert differences(left, {**left, "cells.csv": rows[:1]}) == ["cells.csv differs: 1 rows instead of 2"]


def test_a_failure_counts():
    tally = Tally("kill")
    tally.judge("fine", [])
    tally.judge("not fine", ["a row is missing"])
    assert (tally.tried, tally.failures) == (2, ["kill, not fine: a row is missing"])
    assert re.search(r"^all +2 +1$", table([tally, Tally("other")]), re.MULTILINE)
