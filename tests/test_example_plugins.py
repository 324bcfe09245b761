"""The packages of examples/plugins, which the documentation shows, are found, run together and do what they say.

The fast tests register their entry points as an installer would, by metadata on the path; the slow one installs them
with pip. Both take them through a suite, its tables, the report and the gate.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib import invalidate_caches
from pathlib import Path

import pandas as pd
import pytest
import torch

import leakgauge
from leakgauge.harness.cli.commands import command
from leakgauge.harness.errors import PayloadError
from leakgauge.harness.search.space import load_space
from leakgauge.harness.suite import configuration, registry
from leakgauge.harness.suite.schema import load_suite

PLUGINS = Path(__file__).parent.parent / "examples" / "plugins"
PACKAGES = sorted(path for path in PLUGINS.iterdir() if (path / "pyproject.toml").is_file())
GROUPS = {
    "attack": "attacks",
    "probe": "attacks",
    "reduction": "reductions",
    "perturbation": "perturbations",
    "codec": "codecs",
    "channel": "channels",
    "defense": "defenses",
    "task": "tasks",
    "metric": "metrics",
    "judge": "judges",
    "writer": "reports",
    "command": "commands",
    "suites": "suites",
}
SUITE = {
    "name": "examples",
    "task": "stripes",
    "defense": {"name": "split_pipeline", "cut": 2, "codec": "float8"},
    "operating_points": [
        {"name": "undefended"},
        {"name": "stride", "reduction": {"name": "stride", "every": 2}},
        {"name": "clipped", "perturb": [{"name": "clip", "at": 0.5}]},
    ],
    "channels": ["ideal", {"label": "blanked", "name": "blanking", "p": 0.5}],
    "attacks": ["floor_mean", "ridge", "gray", {"name": "mean_probe", "attribute": "dark"}],
    "metrics": ["psnr_db", {"name": "edge_error", "scale": 100.0}],
    "judge": "thumbnail",
}
ANSWER = {
    **SUITE,
    "name": "answer",
    "defense": {"name": "answer_only", "codec": "float16"},
    "operating_points": [{"name": "answer"}],
    "attacks": ["floor_mean", "ridge"],
}
MOST_LINES = 25
LIMITS = {"minimum_images": 10, "inconclusive": "judge", "lower_bounds": "judge", "worse_by": {"edge_error": 1.0}}
STRICT = {**LIMITS, "absolute": [{"measure": "edge_error", "at_least": 1000.0}]}


def metadata(package: Path) -> tuple[str, str]:
    """Returns what an installer writes: the folder of the metadata, and entry_points.txt."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    return f"{project['name'].replace('-', '_')}-{project['version']}.dist-info", "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """All example packages on the path of this process, as if they were installed."""
    folder = tmp_path_factory.mktemp("site")
    caches = (registry.plugins, registry._rivals)
    with pytest.MonkeyPatch.context() as patch:
        for package in PACKAGES:
            name, points = metadata(package)
            (folder / name).mkdir()
            (folder / name / "entry_points.txt").write_text(points)
            (folder / name / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.split('-')[0]}\nVersion: 0\n")
            patch.syspath_prepend(str(package))
        patch.syspath_prepend(str(folder))
        invalidate_caches()
        for cached in caches:
            cached.cache_clear()
        yield folder
    for cached in caches:
        cached.cache_clear()


@pytest.fixture(scope="module")
def finished(installed, tmp_path_factory):
    return leakgauge.run(SUITE, out=tmp_path_factory.mktemp("run") / "run", workers=1)


@pytest.fixture(scope="module")
def answered(installed, tmp_path_factory):
    return leakgauge.run(ANSWER, out=tmp_path_factory.mktemp("answer") / "run", workers=1)


def test_every_package_is_short():
    for package in PACKAGES:
        lines = [len(path.read_text().splitlines()) for path in package.rglob("*.py")]
        assert sum(lines) <= MOST_LINES, package.name
        assert len((package / "pyproject.toml").read_text().splitlines()) <= MOST_LINES, package.name


def test_every_contract_has_its_package():
    assert {path.name for path in PACKAGES} == set(GROUPS)
    for package in PACKAGES:
        assert f"[leakgauge.{GROUPS[package.name]}]" in metadata(package)[1]


def test_every_package_is_shown_on_its_page():
    pages = PLUGINS.parent.parent / "docs" / "extend"
    for package in PACKAGES:
        text = (pages / f"{package.name}.md").read_text()
        files = [
            path for path in package.rglob("*") if path.suffix in {".py", ".toml", ".yaml"} and path.stat().st_size > 99
        ]
        missing = [path for path in files if f"examples/plugins/{path.relative_to(PLUGINS)}" not in text]
        assert files
        assert not missing


def test_all_of_them_run_together(finished):
    cells = finished.cells
    assert set(cells["status"]) == {"done"}
    assert len(cells) == 3 * 2 * 4
    at = cells[cells["channel"] == "ideal"].set_index(["operating_point", "attack"])
    assert at.loc[("undefended", "ridge"), "tokens"] == 17
    assert at.loc[("stride", "ridge"), "tokens"] == 9
    assert at.loc[("undefended", "ridge"), "leakage"] > at.loc[("undefended", "gray"), "leakage"]
    assert at.loc[("undefended", "mean_probe"), "attribute_accuracy"] > 0.8
    # One byte a value, and the header.
    assert at.loc[("undefended", "ridge"), "payload_bytes"] - at.loc[("undefended", "ridge"), "side_bytes"] == 17 * 32
    assert (at["edge_error"].dropna() > 0).all()
    # Thumbnails of what is rebuilt are recognised; those of mid-grey have no features, and are unscored.
    assert at.loc[("undefended", "ridge"), "judge_reid_top1"] > 0.9
    assert at.loc[("undefended", "gray")].isna()["judge_reid_top1"]


def test_the_channel_and_the_perturbation_take_something_away(finished):
    leakage = finished.cells.set_index(["operating_point", "channel", "attack"])["leakage"]
    undefended = leakage["undefended", "ideal", "ridge"]
    assert leakage["undefended", "blanked", "ridge"] < undefended
    assert leakage["clipped", "ideal", "ridge"] < undefended


def test_the_writer_and_the_command_read_the_run(finished, tmp_path, capsys):
    finished.report(tmp_path / "report")
    lines = (tmp_path / "report" / "headlines.txt").read_text().splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("undefended: ")
    command("worst").main([str(finished.path)], standalone_mode=False)
    assert "dB at" in capsys.readouterr().out


def test_an_answer_alone_leaks_less_than_tokens(finished, answered):
    cells = answered.cells.set_index(["channel", "attack"])
    # Two classes, two bytes each, and the header.
    assert (cells["payload_bytes"] - cells["side_bytes"] == 4).all()
    assert set(cells["tokens"]) == {1}
    tokens = finished.cells.set_index(["operating_point", "channel", "attack"])["psnr_db"]
    assert cells.loc[("ideal", "ridge"), "psnr_db"] < tokens["undefended", "ideal", "ridge"]
    # The answer arrives as it was: half precision changes no class.
    assert cells.loc[("ideal", "ridge"), "quality"] == cells.loc[("ideal", "ridge"), "quality_base"]


def test_a_plug_in_without_a_name_bears_that_of_its_entry_point(installed):
    for group, name in {("metrics", "edge_error"), ("channels", "blanking"), ("tasks", "stripes"), ("attacks", "gray")}:
        assert registry.create(group, name, {}).name == name


def test_report_and_gate_take_both_runs(finished, answered, tmp_path):
    for stated, name in ((LIMITS, "limits"), (STRICT, "strict")):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(stated))
    for run in (finished, answered):
        images = pd.read_parquet(run.path / "images.parquet")
        assert images["edge_error"].notna().any()
        page = tmp_path / run.suite.name / "index.html"
        base = str(tmp_path / f"{run.suite.name}.json")
        command("report").main([str(run.path), "--out", str(page.parent)], standalone_mode=False)
        assert "Edge error" in page.read_text()
        command("baseline").main([str(run.path), "--out", base], standalone_mode=False)
        for limits, exit_code in (("limits", 0), ("strict", 1)):
            words = [str(run.path), "--baseline", base, "--limits", str(tmp_path / f"{limits}.yaml")]
            assert command("gate").main(words, standalone_mode=False) == exit_code


def test_suites_and_spaces_are_found_by_name(installed):
    assert "lab-smoke" in configuration.shipped("suites")
    assert load_suite("lab-smoke").evaluation_images == 32
    assert load_space("lab-thresholds").trials == 20


def test_bytes_from_outside_are_refused(installed):
    codec = registry.create("codecs", "float8", {})
    tokens = torch.linspace(-1, 1, 12).reshape(3, 4)
    assert torch.allclose(codec.decode(codec.encode(tokens), 3, 4), tokens, atol=0.04)
    with pytest.raises(PayloadError, match="11 bytes"):
        codec.decode(codec.encode(tokens)[:-1], 3, 4)
    with pytest.raises(PayloadError, match="finite"):
        codec.decode(b"\x7f" * 12, 3, 4)


@pytest.mark.slow
def test_pip_installs_them(tmp_path):
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    sources = []
    for package in PACKAGES:  # copies: a build leaves folders behind
        source = tmp_path / "source" / package.name
        for path in (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            (source / path.relative_to(package)).parent.mkdir(parents=True, exist_ok=True)
            (source / path.relative_to(package)).write_bytes(path.read_bytes())
        sources.append(str(source))
    subprocess.run([*pip, "--target", str(target), *sources], check=True, capture_output=True, timeout=280)
    places = [str(target), str(PLUGINS.parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "COLUMNS": "200"}

    def leakgauge_says(*words: object) -> str:
        line = [sys.executable, "-m", "leakgauge.harness.cli", *map(str, words)]
        done = subprocess.run(
            line, env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = leakgauge_says("list")
    names = ("gray", "mean_probe", "stride", "clip", "float8", "blanking", "answer_only", "stripes", "edge_error")
    assert not [name for name in (*names, "thumbnail", "headlines", "worst", "lab-smoke") if name not in said]
    (tmp_path / "limits.yaml").write_text(json.dumps(LIMITS))
    for suite in (SUITE, ANSWER):
        run = tmp_path / suite["name"]
        run.with_suffix(".yaml").write_text(json.dumps(suite))
        leakgauge_says("run", run.with_suffix(".yaml"), "--out", run, "--workers", 1)
        assert set(pd.read_csv(run / "cells.csv")["status"]) == {"done"}
        assert pd.read_parquet(run / "images.parquet")["edge_error"].notna().any()
        leakgauge_says("report", run, "--out", run / "report")
        assert "Edge error" in (run / "report" / "index.html").read_text()
        leakgauge_says("baseline", run, "--out", run.with_suffix(".base"))
        assert "pass" in leakgauge_says("gate", run, "--baseline", run.with_suffix(".base"), "--limits", "limits.yaml")
