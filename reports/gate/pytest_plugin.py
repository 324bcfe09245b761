"""The pytest plug-in: limits on leakage in a user's own tests, and ``pytest --leakgauge SUITE``.

Everything heavy is imported where it is used: every pytest session of an environment loads this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from leakgauge.harness.errors import LeakgaugeError

if TYPE_CHECKING:
    from leakgauge.reports.gate.check import Check, Gate
    from leakgauge.reports.gate.testing import Leakgauge


@pytest.fixture(scope="session")
def leakgauge(pytestconfig: pytest.Config) -> Leakgauge:
    """Runs suites and checks leakage limits; runs are kept for the session, and shared by its worker processes."""
    from leakgauge.reports.gate.testing import Leakgauge  # noqa: PLC0415

    return Leakgauge(folder_of(pytestconfig))


def folder_of(config: pytest.Config) -> Path:
    """Returns the folder for a session's runs: with pytest-xdist one for all workers, so that a run is made once."""
    # pytest keeps one factory of temporary folders a session, which its fixture of that name hands out.
    factory: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]
    worker: dict[str, str] | None = getattr(config, "workerinput", None)
    if worker is None:
        return factory.mktemp("leakgauge")
    # The base folders of workers lie in one folder.
    return factory.getbasetemp().parent / f"leakgauge-{worker['testrunuid']}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--leakgauge`` and what goes with it."""
    group = parser.getgroup("leakgauge", "leakage limits")
    group.addoption("--leakgauge", metavar="SUITE", help="run this suite and gate it, a test an operating point")
    group.addoption("--leakgauge-baseline", metavar="FILE", help="file that `leakgauge baseline` wrote")
    group.addoption("--leakgauge-limits", metavar="FILE", help="YAML file of limits")
    group.addoption("--leakgauge-set", metavar="KEY=VALUE", action="append", help="override a suite key")


def pytest_configure(config: pytest.Config) -> None:
    """Refuses a file of ours by which pytest chose another project's settings and root.

    pytest chooses them before it loads plug-ins, and takes every word that it does not know yet for a test. A word
    with ``=`` is none.

    Raises:
        pytest.UsageError: The file lies elsewhere; says how to write the option.
    """
    if config.getoption("rootdir") is not None or config.getoption("inifilename") is not None:
        return
    words, cwd = config.invocation_params.args, config.invocation_params.dir
    for option, word in pairwise(words):
        file = cwd / word
        if option in _FILES and file.exists() and _led_astray(file, cwd, config.rootpath):
            raise pytest.UsageError(
                f"{option} {word} makes {config.rootpath} pytest's root: the file lies outside of this project"
                f" -- write {option}={word}"
            )


_FILES = ("--leakgauge-baseline", "--leakgauge-limits")
_SETTINGS = ("pyproject.toml", "pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "tox.ini", "setup.cfg")
"""What marks the top of a project for pytest."""


def _led_astray(file: Path, cwd: Path, root: Path) -> bool:
    """Tells whether a file outside of the project in which pytest was called may have chosen pytest's root."""
    marks = (*_SETTINGS, "setup.py", ".git")
    project = next((f for f in (cwd, *cwd.parents) if any((f / mark).exists() for mark in marks)), cwd)
    outside = not file.resolve().is_relative_to(project.resolve())
    return root != project and (outside or not cwd.is_relative_to(root))


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Appends a test for each operating point of the suite that ``--leakgauge`` names, and one for the rest.

    Raises:
        pytest.UsageError: The suite, the baseline or the limits cannot be read.
    """
    suite = config.getoption("--leakgauge")
    if suite is None:
        return
    collector = GatedSuite.from_parent(session, name=f"leakgauge {suite}", nodeid=f"leakgauge::{suite}")
    items.extend(collector.collect())


class GatedSuite(pytest.Collector):
    """A suite that runs once, when the first of its tests does."""

    _gate: Gate | None = None

    def collect(self) -> Iterator[GatedPoint]:
        """Yields a test for each operating point, and one for checks that no operating point owns."""
        from leakgauge.harness.suite.schema import load_suite  # noqa: PLC0415

        option = self.config.getoption
        try:
            suite = load_suite(option("--leakgauge"), option("--leakgauge-set"))
            if option("--leakgauge-baseline") is None and option("--leakgauge-limits") is None:
                raise pytest.UsageError("--leakgauge needs --leakgauge-baseline or --leakgauge-limits")
        except LeakgaugeError as error:
            raise pytest.UsageError(str(error)) from error
        for point in suite.operating_points:
            yield GatedPoint.from_parent(self, name=point.name)
        yield GatedPoint.from_parent(self, name="everything else")

    def gate(self) -> Gate:
        """Runs the suite the first time, and returns what the gate found."""
        from leakgauge.reports.gate.testing import Leakgauge  # noqa: PLC0415

        if self._gate is None:
            option = self.config.getoption
            gauge = Leakgauge(folder_of(self.config))
            run = gauge.run(option("--leakgauge"), option("--leakgauge-set"))
            self._gate = gauge.judge(run, option("--leakgauge-limits"), option("--leakgauge-baseline"))
        return self._gate


class GatedPoint(pytest.Item):
    """The checks of one operating point."""

    def runtest(self) -> None:
        """Fails where a check does not pass, or where there is none.

        Raises:
            LeakageError: A check did not pass.
        """
        from leakgauge.reports.gate.testing import LeakageError, check_line  # noqa: PLC0415

        assert isinstance(self.parent, GatedSuite)
        gate = self.parent.gate()
        others = [item.name for item in self.parent.collect()]
        mine = [check for check in gate.checks if self._owner(check, others) == self.name]
        failed = [check_line(check) for check in mine if check.outcome != "pass"]
        if failed:
            raise LeakageError("\n".join(failed))
        if not mine and self.name != others[-1]:
            raise LeakageError(f"  cannot tell: {self.name}: no limit is for it")

    @staticmethod
    def _owner(check: Check, names: list[str]) -> str:
        point = check.place.partition(", channel ")[0]
        return point if point in names else names[-1]

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Shows the checks that failed, or the error in one line."""
        if isinstance(excinfo.value, LeakgaugeError) or type(excinfo.value).__name__ == "LeakageError":
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Names the test as pytest shows it."""
        assert self.parent is not None
        return self.path, None, f"{self.parent.name}: {self.name}"
