"""A result names the commit of its code, and never one of a repository that the code merely lies in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from leakgauge.harness.store import provenance
from leakgauge.harness.store.provenance import code_identity, collect

CPU = torch.device("cpu")
OWN_TO_GIT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=someone", "-c", "user.email=someone@localhost", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(autouse=True)
def _no_repository_around(tmp_path, monkeypatch):
    for name in OWN_TO_GIT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


def repository(folder: Path) -> str:
    """Makes a repository of one commit; returns its name."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    (folder / "thesis.txt").write_text("x")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "one")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def code_at(monkeypatch):
    """Puts the code, which asks where it lies itself, below a folder."""

    def put(root: Path) -> None:
        (root / "harness" / "store").mkdir(parents=True, exist_ok=True)
        (root / "harness" / "store" / "provenance.py").touch()
        monkeypatch.setattr(provenance, "__file__", str(root / "harness" / "store" / "provenance.py"))

    return put


def identity(code: str = "0123456789abcdef") -> tuple[str, bool | None]:
    found = collect(CPU, code)
    assert found["version"]
    return code_identity(found).removeprefix(f"{found['version']}+"), found["dirty"]


def test_a_checkout_of_the_project_is_named_by_its_commit(tmp_path, code_at):
    repository(tmp_path / "leakgauge")
    (tmp_path / "leakgauge" / "pyproject.toml").write_text("[project]\nname = 'leakgauge'\n")
    code_at(tmp_path / "leakgauge")
    git(tmp_path / "leakgauge", "add", ".")
    git(tmp_path / "leakgauge", "commit", "--quiet", "--message", "two")
    commit = git(tmp_path / "leakgauge", "rev-parse", "HEAD")
    assert identity() == (commit, False)
    (tmp_path / "leakgauge" / "thesis.txt").write_text("edited")
    assert identity() == (commit, True)


@pytest.mark.parametrize("place", [".venv/lib/site-packages", "vendored", "."])
def test_inside_somebody_elses_repository_the_code_names_itself(tmp_path, code_at, place):
    repository(tmp_path / "theirs")
    code_at(tmp_path / "theirs" / place)
    if place != ".":
        (tmp_path / "theirs" / "pyproject.toml").write_text("[project]\nname = 'theirs'\n")
        (tmp_path / "theirs" / place / "pyproject.toml").write_text("[project]\nname = 'leakgauge'\n")
    git(tmp_path / "theirs", "add", ".")
    git(tmp_path / "theirs", "commit", "--quiet", "--message", "they keep it beside their own")
    assert identity() == ("0123456789abcdef", None)


def test_at_the_top_of_somebody_elses_project_the_code_names_itself(tmp_path, code_at):
    """``pip install --target ..`` from a repository called leakgauge: all lies where a checkout of ours would."""
    repository(tmp_path / "leakgauge")
    (tmp_path / "leakgauge" / "pyproject.toml").write_text("[project]\nname = 'theirs'\n")
    git(tmp_path / "leakgauge", "add", ".")
    git(tmp_path / "leakgauge", "commit", "--quiet", "--message", "two")
    code_at(tmp_path / "leakgauge")
    assert identity() == ("0123456789abcdef", None)


def test_in_no_repository_the_code_names_itself(tmp_path, code_at):
    code_at(tmp_path / "site-packages")
    assert identity() == ("0123456789abcdef", None)
    assert code_identity({"commit": None, "version": "0.1.0"}) == "", "a version alone names no code"


def test_a_hook_of_somebody_elses_repository_does_not_name_it(tmp_path, code_at, monkeypatch):
    """Git tells its hooks where its repository is, and so every git that they start."""
    repository(tmp_path / "theirs")
    (tmp_path / "theirs" / "harness" / "store").mkdir(parents=True)
    (tmp_path / "theirs" / "harness" / "store" / "provenance.py").touch()  # a fork: it tracks a file of that name
    git(tmp_path / "theirs", "add", ".")
    git(tmp_path / "theirs", "commit", "--quiet", "--message", "two")
    code_at(tmp_path / "checkout")
    (tmp_path / "checkout" / "pyproject.toml").write_text("[project]\nname = 'leakgauge'\n")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "theirs" / ".git"))
    assert identity() == ("0123456789abcdef", None)
    assert os.environ["GIT_DIR"]
