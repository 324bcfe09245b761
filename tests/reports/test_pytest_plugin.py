"""The pytest plug-in in sessions of its own: limits in a user's tests, and a suite as tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from simulated_runs import Simulation
from toy_task import install

from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.gate.baseline import baseline_of, write_baseline
from leakgauge.reports.gate.pytest_plugin import folder_of
from leakgauge.reports.gate.testing import LeakageError, Leakgauge

SUITE = """
name: tiny
task: toy
defense: {name: split_pipeline, cut: 1, codec: float16}
operating_points:
  - name: undefended
  - {name: merged, reduction: {name: threshold, thresholds: 0.9}}
threat_models:
  - {name: server, auxiliary: {n: 48}}
attacks: [floor_mean, ridge]
metrics: [psnr_db]
judge: victim
evaluation_images: 24
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory) -> str:
    """Where sessions find the task of tiny images."""
    return install(tmp_path_factory.mktemp("plugins"))


def session(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments],
        env=os.environ if path is None else {**os.environ, "PYTHONPATH": path},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_the_fixture_fails_a_test_that_leaks(tmp_path):
    Simulation().write(tmp_path / "run")
    (tmp_path / "test_leak.py").write_text(
        "def test_low(leakgauge):\n"
        "    leakgauge.check(leakgauge.load('run'), {'absolute': [{'measure': 'leakage', 'at_most': 3}]})\n"
        "def test_high(leakgauge):\n"
        "    leakgauge.check(leakgauge.load('run'), {'absolute': [{'measure': 'leakage', 'at_most': 30}]})\n"
    )
    result = session(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "1 failed, 1 passed" in result.stdout
    assert "leaks more: plain, channel ideal, threat model server: leakage" in result.stdout


def test_checks_without_pytest(tmp_path):
    gauge = Leakgauge(tmp_path)
    Simulation().write(tmp_path / "run")
    write_baseline(baseline_of(gauge.load(tmp_path / "run")), tmp_path / "b.json")
    gauge.check(gauge.load(tmp_path / "run"), baseline=tmp_path / "b.json")
    worse = load_runs([Simulation(shift=2.0).write(tmp_path / "worse")])[0]
    with pytest.raises(LeakageError, match=r"leaks more: merged.*leakage .* dB, was"):
        gauge.check(worse, baseline=tmp_path / "b.json")


def test_a_suite_becomes_a_test_an_operating_point(tmp_path, plugins):
    (tmp_path / "tiny.yaml").write_text(SUITE)
    # So few images limit ridge by its data, and it cannot find positions: here only the limits are to be judged.
    (tmp_path / "limits.yaml").write_text(
        "inconclusive: judge\nlower_bounds: judge\nminimum_images: 20\n"
        "absolute:\n"
        "  - {measure: leakage, operating_point: merged, at_most: 90}\n"
        "  - {measure: leakage, operating_point: undefended, at_most: 1}\n"
    )
    result = session(tmp_path, "--leakgauge", "tiny.yaml", "--leakgauge-limits", "limits.yaml", "-rA", path=plugins)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "1 failed, 2 passed" in result.stdout
    assert "leaks more: undefended, channel ideal, threat model server: leakage" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--leakgauge", "nowhere.yaml", "--leakgauge-limits", "l.yaml"], "nowhere.yaml"),
        (["--leakgauge", "smoke"], "needs --leakgauge-baseline or --leakgauge-limits"),
    ],
)
def test_usage_errors_are_one_line(tmp_path, arguments, expected):
    result = session(tmp_path, *arguments)
    assert result.returncode == 4
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def two_projects(tmp_path) -> tuple[Path, Path]:
    """A project with settings and a test, and a repository beside it that holds the limits."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (mine, other):
        folder.mkdir()
        (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '-p no:cacheprovider'\n")
    (mine / "test_root.py").write_text(
        "def test_root(pytestconfig):\n    assert pytestconfig.rootpath.name == 'mine'\n"
        "    assert pytestconfig.inipath.parent.name == 'mine'\n"
    )
    (other / "limits.yaml").write_text("absolute:\n  - {measure: leakage, at_most: 90}\n")
    return mine, other


def test_limits_of_another_repository_do_not_choose_the_root(two_projects):
    mine, other = two_projects
    result = session(mine, f"--leakgauge-limits={other / 'limits.yaml'}")
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_file_that_chose_the_root_is_refused_in_one_line(two_projects):
    mine, _ = two_projects
    word = "../other/limits.yaml"
    result = session(mine, "--leakgauge-limits", word)
    assert result.returncode == 4, result.stdout + result.stderr
    assert f"write --leakgauge-limits={word}" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    # Who says where the root is has chosen it; beside a test of this project, pytest finds its settings.
    for more in (("-c", "pyproject.toml"), ("test_root.py",)):
        said = session(mine, *more, "--leakgauge-limits", word)
        assert said.returncode == 0, said.stdout + said.stderr


def test_a_file_within_the_project_may_be_a_word_of_its_own(two_projects):
    mine, other = two_projects
    (mine / "ci").mkdir()
    (mine / "ci" / "limits.yaml").write_bytes((other / "limits.yaml").read_bytes())
    assert session(mine, "--leakgauge-limits", "ci/limits.yaml").returncode == 0
    assert session(mine / "ci", "..", "--leakgauge-limits", "../ci/limits.yaml").returncode == 0


def test_workers_of_a_session_share_the_folder_of_its_runs(tmp_path):
    def config_of(worker, run):
        factory = SimpleNamespace(getbasetemp=lambda: tmp_path / f"popen-{worker}", mktemp=lambda name: tmp_path / name)
        return SimpleNamespace(_tmp_path_factory=factory, workerinput={"testrunuid": run})

    assert folder_of(config_of("gw0", "a")) == folder_of(config_of("gw1", "a"))
    assert folder_of(config_of("gw0", "a")) != folder_of(config_of("gw0", "b"))


@pytest.mark.slow
def test_two_workers_run_the_suite_once(tmp_path, plugins):
    (tmp_path / "tiny.yaml").write_text(SUITE)
    (tmp_path / "limits.yaml").write_text(
        "inconclusive: judge\nminimum_images: 20\nabsolute:\n  - {measure: leakage, at_most: 90}\n"
    )
    arguments = ("--leakgauge", "tiny.yaml", "--leakgauge-limits", "limits.yaml", "-n", "2", "--basetemp", "base")
    result = session(tmp_path, *arguments, path=plugins)
    assert result.returncode == 0, result.stdout + result.stderr
    runs = list((tmp_path / "base").glob("leakgauge-*/*/run.json"))
    assert len(runs) == 1
    log = (runs[0].parent / "log").read_text(encoding="utf-8")
    assert log.count(" done ") == 4
