"""Leakage limits in a test: what the ``leakgauge`` fixture gives, usable without pytest too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.schema import load_suite
from leakgauge.harness.system.files.locking import exclusive
from leakgauge.harness.system.machine import choose_device
from leakgauge.reports.analysis.run import LoadedRun, load_runs
from leakgauge.reports.gate.baseline import read_baseline
from leakgauge.reports.gate.check import Check, Gate
from leakgauge.reports.gate.gate import judge
from leakgauge.reports.gate.limits import parse_limits, read_limits
from leakgauge.reports.gate.output import headline


class LeakageError(AssertionError):
    """A run that leaks or costs more than allowed, or of which that cannot be told."""


class Leakgauge:
    """What the ``leakgauge`` fixture gives to a test.

    Args:
        folder: Where runs go; a run that is already there is resumed, so that several tests share one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, suite: str | Path, overrides: list[str] | None = None, device: str = "auto") -> LoadedRun:
        """Runs a suite, or takes up the run of it that this session already made.

        Args:
            suite: A YAML file, or the name of a shipped suite.
            overrides: ``key=value`` as for ``--set``.
            device: auto, cpu or cuda.

        Raises:
            LeakgaugeError: The suite cannot be run.
        """
        chosen = choose_device(device)
        plan = prepare(load_suite(str(suite), overrides), chosen)
        folder = self._folder / f"{plan.suite.name}-{plan.key[:8]}"
        # Processes of one test session share the folder: the first measures, the others find a run that is complete.
        with exclusive(self._folder / f"{folder.name}.turn", wait_s=-1):
            store = run_suite(plan, folder, chosen, 1, lambda done, total: None)
        return load_runs([store])[0]

    def load(self, folder: Path | str) -> LoadedRun:
        """Reads a run that is already there.

        Raises:
            LeakgaugeError: There is none.
        """
        return load_runs([RunFolder.open(folder)])[0]

    def judge(
        self, run: LoadedRun, limits: dict[str, Any] | Path | str | None = None, baseline: Path | str | None = None
    ) -> Gate:
        """Judges a run as ``leakgauge gate`` does, without failing.

        Args:
            run: The run.
            limits: The content of a limits file, or its path.
            baseline: Path of a baseline file.
        """
        read = parse_limits(limits or {}) if limits is None or isinstance(limits, dict) else read_limits(Path(limits))
        return judge(run, None if baseline is None else read_baseline(Path(baseline)), read)

    def check(
        self, run: LoadedRun, limits: dict[str, Any] | Path | str | None = None, baseline: Path | str | None = None
    ) -> None:
        """Fails the test unless the run passes; what cannot be told fails too.

        Args:
            run: The run.
            limits: The content of a limits file, or its path.
            baseline: Path of a baseline file.

        Raises:
            LeakageError: It does not pass; says which checks did not and why.
        """
        gate = self.judge(run, limits, baseline)
        if gate.outcome != "pass":
            lines = [check_line(check) for check in gate.checks if check.outcome != "pass"]
            raise LeakageError("\n".join([f"leakgauge: {headline(gate)}", *lines]))


def check_line(check: Check) -> str:
    """Writes a check in one line."""
    name = check.measure.name if check.measure else "all"
    unit = f" {check.measure.unit}" if check.measure else ""
    was = "" if check.base != check.base else f", was {check.base:.4g}"
    now = "" if check.new != check.new else f" {check.new:.4g}{unit}{was}"
    return f"  {check.said}: {check.place}: {name}{now} ({check.rule}){f': {check.why}' if check.why else ''}"
