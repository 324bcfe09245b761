"""How long a report takes, against another checkout: ``python -m leakgauge.benchmarks.studies.report_time RUN OTHER``.

Both write the report of one run in turn, every time in a fresh process; what counts are the ratios within a repetition,
of CPU time and of time on the clock, and that every file is the same to the last byte.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

import leakgauge
from leakgauge.benchmarks.studies.command_line import start
from leakgauge.benchmarks.studies.speed.timing import Ratio
from leakgauge.harness.errors import ConfigError

CLI = (sys.executable, "-P", "-m", "leakgauge.harness.cli")


class Written(NamedTuple):
    """One report: CPU seconds and seconds on the clock, and a digest of every file by its path within the report."""

    cpu: float
    clock: float
    digests: dict[str, str]


def digests_of(folder: Path) -> dict[str, str]:
    """Returns a digest of every file in a folder, by its path within."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_report(tree: Path, run: Path) -> Written:
    """Writes the report of a run with the code of a checkout, into a folder that is then taken away.

    Raises:
        ConfigError: The command failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report"
        before, began = os.times(), time.perf_counter()
        ended = subprocess.run(
            (*CLI, "report", str(run), "--out", str(out)), env=environment, check=False, capture_output=True, text=True
        )
        after, clock = os.times(), time.perf_counter() - began
        if ended.returncode:
            raise ConfigError(f"no report: {ended.stderr.strip()[-120:]}", where=str(tree), hint="write one by hand")
        cpu = after.children_user - before.children_user + after.children_system - before.children_system
        return Written(cpu, clock, digests_of(out))


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Names the files that only one of two reports holds, or that differ."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def main(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    other: Annotated[Path, typer.Argument(help="Root of the checkout to compare this one with, set up for use.")],
    repetitions: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Prints a Markdown table, and which files differ."""
    here = Path(leakgauge.__file__).resolve().parents[1]
    trees = {"other": other.resolve(), "this": here}
    rounds = [{name: write_report(tree, run.resolve()) for name, tree in trees.items()} for _ in range(repetitions)]
    print(f"| time | other, fewest of {repetitions} (s) | this (s) | this to other (range) |")
    print("| --- | ---: | ---: | ---: |")
    for name in ("cpu", "clock"):
        seconds = {tree: [float(getattr(one[tree], name)) for one in rounds] for tree in trees}
        ratio = Ratio.of([new / old for new, old in zip(seconds["this"], seconds["other"], strict=True)])
        fewest = f"{min(seconds['other']):.1f} | {min(seconds['this']):.1f}"
        print(f"| {name} | {fewest} | {ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f}) |")
    reports = [one[tree].digests for one in rounds for tree in trees]
    changed = sorted({name for report in reports[1:] for name in differing(reports[0], report)})
    print(f"\n{len(reports[0])} files, " + (f"of which differ: {', '.join(changed)}" if changed else "all the same"))


if __name__ == "__main__":
    start(main)
