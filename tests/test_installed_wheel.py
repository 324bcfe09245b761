"""The built wheel in an environment of its own, away from the checkout: what a newcomer has after ``pip install``."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("harness", "attacks", "defenses", "benchmarks", "reports")
DATA = {".yaml", ".safetensors", ".json", ".csv", ".j2", ".md", ".typed"}
LIMITS = "lower_bounds: judge\ninconclusive: judge\n"
OWN_TEST = f"""
import importlib
from pathlib import Path

import leakgauge.reports


def test_mine():
    for name in {FOLDERS!r}:
        assert importlib.import_module(name).MINE == name
    assert "site-packages" in Path(leakgauge.reports.__file__).parts


def test_the_plug_in_is_ours(leakgauge):
    assert type(leakgauge).__module__ == "leakgauge.reports.gate.testing"
"""
DOCTESTS = """
import doctest, pathlib, leakgauge
from leakgauge import front_door
assert "site-packages" in pathlib.Path(leakgauge.__file__).parts, leakgauge.__file__
found = [doctest.testmod(module) for module in (leakgauge, front_door)]
assert all(one.attempted and not one.failed for one in found), found
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from what git would send: sources, settings and links, without earlier builds."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for name in (*FOLDERS, "leakgauge"):
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(target), str(source)], check=True, capture_output=True, timeout=240)
    return next(target.glob("*.whl"))


class Installed:
    """An environment in which the wheel is installed; what the wheel needs is found where these tests find it.

    ``gained`` is what the installation put into its site-packages.
    """

    def __init__(self, folder: Path, wheel: Path, cache: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, timeout=240)
        self.python = folder / "bin" / "python"
        [packages] = (folder / "lib").glob("python3*/site-packages")
        # A path in a .pth file is searched, after the environment's own, though .pth files within it are not read:
        # an editable installation of the checkout stays out of sight.
        (packages / "needed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
        before = {path.name for path in packages.iterdir()}
        # With these packages of its own, lest the checkout's metadata be uninstalled.
        pip = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--ignore-installed"]
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if name not in {"PYTHONPATH", "VIRTUAL_ENV"} and not name.startswith(("LEAKGAUGE_", "PYTEST_"))
        } | {"LEAKGAUGE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
        self.run(folder, *pip, str(wheel))
        self.gained = {path.name for path in packages.iterdir()} - before

    def run(self, folder: Path, *arguments: str) -> str:
        """Runs Python in a folder; returns what it printed, and fails where it does."""
        done = subprocess.run(
            [str(self.python), *arguments],
            cwd=folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
        return done.stdout

    def leakgauge(self, folder: Path, *arguments: str) -> str:
        """Runs the installed command in a folder."""
        return self.run(folder, str(self.python.parent / "leakgauge"), *arguments)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Installed:
    return Installed(tmp_path_factory.mktemp("environment") / "venv", wheel, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def smoke(installed, tmp_path_factory) -> Path:
    """A folder in which ``leakgauge run smoke`` ran."""
    folder = tmp_path_factory.mktemp("outside")
    installed.leakgauge(folder, "run", "smoke", "--out", "runs/smoke")
    return folder


def test_a_wheel_holds_one_package_and_each_file_once(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    info = f"leakgauge-{distribution('leakgauge').version}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"leakgauge", info}
    assert len(names) == len(set(names))
    wanted = {
        f"leakgauge/{path.relative_to(ROOT)}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", *DATA} and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.split("/")[1] in FOLDERS} == wanted
    assert "leakgauge/py.typed" in names


def test_site_packages_gained_one_package(installed):
    version = distribution("leakgauge").version
    assert installed.gained == {"leakgauge", f"leakgauge-{version}.dist-info"}


def test_a_run_is_made_reported_and_gated_outside_of_the_checkout(installed, smoke):
    installed.leakgauge(smoke, "report", "runs/smoke", "--out", "report")
    assert (smoke / "report" / "index.html").stat().st_size > 100_000
    installed.leakgauge(smoke, "baseline", "runs/smoke", "--attack", "ridge", "--out", "baseline.json")
    (smoke / "limits.yaml").write_text(LIMITS)
    said = installed.leakgauge(smoke, "gate", "runs/smoke", "--baseline", "baseline.json", "--limits", "limits.yaml")
    assert "pass" in said
    # The commit of the checkout is no business of what was installed.
    assert '"commit": null' in (smoke / "runs" / "smoke" / "run.json").read_text(encoding="utf-8")


def test_examples_in_docstrings_run_where_it_is_installed(installed, tmp_path):
    installed.run(tmp_path, "-c", DOCTESTS)


def test_a_project_with_folders_of_the_same_names_runs_its_tests_and_our_plug_in(installed, smoke, tmp_path):
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(f"MINE = {folder!r}\n")
    (tmp_path / "test_own.py").write_text(OWN_TEST)
    (tmp_path / "limits.yaml").write_text(LIMITS)
    installed.leakgauge(smoke, "baseline", "runs/smoke", "--attack", "ridge", "--out", str(tmp_path / "baseline.json"))
    tested = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    assert "2 passed" in installed.run(tmp_path, *tested)
    gated = ["--leakgauge", "smoke", "--leakgauge-baseline", "baseline.json", "--leakgauge-limits", "limits.yaml"]
    # Two operating points, everything else, and the project's own two tests.
    assert "5 passed" in installed.run(tmp_path, *tested, *gated, "-n", "2")
