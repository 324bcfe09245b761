"""What a killed process leaves half written is deleted by the next command in its folder, and nothing else is."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from leakgauge.harness import cli
from leakgauge.harness.cli import search as searching
from leakgauge.harness.errors import StoreError
from leakgauge.harness.run import rescoring, runner
from leakgauge.harness.run.rescoring import rescore
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.search.study import memo_folder
from leakgauge.harness.store.run_folder import RunFolder, write_atomic
from leakgauge.harness.system.files.sweeping import sweep
from leakgauge.reports.writers import command as reporting

CPU = torch.device("cpu")
KEY = "0123456789abcdef"
WRITTEN = ["run.json", "cells.csv", "images.parquet", f"{KEY}.json", f"{KEY}.short", f"{KEY}.png", "index.html"]
WRITTEN += ["report.md", "leakage.svg", "leakage.pdf", "leakage.tex", "front.json", "suite.yaml"]
OTHERS = [
    "run.json",
    ".run.json",
    ".run.json.bak",
    ".run.json.ABCDEFGH",
    ".run.json.abcdefghi",
    "run.json.abcdefgh",
    ".notes.txt.abcdefgh",
    "deeper/.run.json.abcdefgh",
]


class Stopped(Exception):
    """Raised where a command would begin its work: what it does before is done."""


def stop(*_, **__):
    raise Stopped


@pytest.fixture
def killed(monkeypatch):
    """Returns the file that a writer leaves who is killed before he is done."""

    def interrupted(handle):
        raise KeyboardInterrupt

    def write(path: Path) -> Path:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupted)
            with pytest.raises(KeyboardInterrupt):
                write_atomic(path, b"data")
        [left] = path.parent.glob(f".{path.name}.*")
        return left

    return write


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_killed_writer_leaves_is_deleted(tmp_path, killed, name):
    left = killed(tmp_path / name)
    sweep(tmp_path)
    assert not left.exists()


def test_nothing_else_is_deleted(tmp_path, killed):
    left = killed(tmp_path / "run.json")
    for name in OTHERS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    sweep(tmp_path, tmp_path / "nowhere")
    assert not left.exists()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(OTHERS)


def run(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(runner, "manifest_of", stop)
    with pytest.raises(Stopped):
        run_suite(SimpleNamespace(key="plan", codes={}, cells=[]), folder, CPU, 1, lambda done, total: None)


def score(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(rescoring, "suite_of", stop)
    with pytest.raises(Stopped):
        rescore(RunFolder(folder), CPU)


def report(folder: Path, monkeypatch) -> None:
    other = RunFolder(folder.parent / "a run")
    other.write_manifest({"plan_key": "plan"})
    monkeypatch.setattr(reporting, "plugins", lambda group: {})
    monkeypatch.setattr(reporting, "load_runs", lambda runs: [])
    ended = CliRunner().invoke(cli.app, ["report", str(other.path), "--out", str(folder)])
    if isinstance(ended.exception, StoreError):
        raise ended.exception
    assert ended.exit_code == 0, ended.output


def search(folder: Path, monkeypatch) -> None:
    space = folder.parent / "space.yaml"
    space.write_text("name: some\ntask: photos\nobjectives: [quality]\n")
    monkeypatch.setattr(searching, "_search", lambda *_: (None, []))
    searching.search(str(space), out=folder)


COMMANDS = {
    run: [".", "parts", "reconstructions", "attacks"],
    score: [".", "parts", "reconstructions", "attacks"],
    report: [".", "figures"],
    search: [".", str(memo_folder(Path()) / "some code")],
}


def left_in(folder: Path, command, killed) -> list[Path]:
    if command in {run, score}:
        RunFolder(folder).write_manifest({"plan_key": "plan", "sessions": []})
    return [killed(folder / place / f"{KEY}.json") for place in COMMANDS[command]]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_sweeps_the_folders_that_it_writes(tmp_path, monkeypatch, killed, command):
    folder = tmp_path / "out"
    left = left_in(folder, command, killed)
    whole = folder / "parts" / f"{KEY}.json"
    write_atomic(whole, b"data")
    command(folder, monkeypatch)
    assert not [path for path in left if path.exists()]
    assert whole.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_nobody_sweeps_a_folder_that_another_process_writes(tmp_path, monkeypatch, killed, command):
    folder = tmp_path / "out"
    left = left_in(folder, command, killed)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another leakgauge is at work"):
            command(folder, monkeypatch)
    assert all(path.exists() for path in left)
