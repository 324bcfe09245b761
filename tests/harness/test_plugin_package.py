"""A third-party attack, installed from its own package, shows up and runs without an edit anywhere else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from toy_task import install

from leakgauge.harness.store.run_folder import RunFolder

PACKAGES = [Path(__file__).parents[2] / "examples" / "plugins" / name for name in ("attack", "metric")]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for package in PACKAGES:
        (source / package.name).mkdir()
        for path in package.glob("*.*"):
            if path.is_file():
                (source / package.name / path.name).write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*pip, "--target", str(target), *map(str, source.iterdir())], check=True, capture_output=True, timeout=120
    )
    return {**os.environ, "PYTHONPATH": install(target), "COLUMNS": "200"}


def leakgauge(environment, *arguments):
    command = [sys.executable, "-m", "leakgauge.harness.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


def test_it_is_listed(environment):
    done = leakgauge(environment, "list", "attacks")
    assert done.returncode == 0, done.stderr
    assert "gray" in done.stdout
    assert "a third-party attack in ten lines" in done.stdout


def test_it_runs(environment, tmp_path):
    suite = {
        "name": "third-party",
        "task": "toy",
        "operating_points": [{"name": "undefended", "cut": 1}],
        "attacks": ["floor_mean", "gray"],
        "metrics": ["psnr_db", {"name": "edge_error", "scale": 100.0}],
        "evaluation_images": 16,
        "threat_models": [{"auxiliary": {"n": 48}}],
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    done = leakgauge(environment, "run", str(tmp_path / "suite.yaml"), "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    cells = RunFolder.open(tmp_path / "run").cells().set_index("attack")
    assert cells.loc["gray", "status"] == "done"
    assert 5 < cells.loc["gray", "psnr_db"] < 20
    assert 0 < cells.loc["gray", "edge_error_lo"] < cells.loc["gray", "edge_error"] < cells.loc["gray", "edge_error_hi"]
    assert "Edge error" in done.stdout
