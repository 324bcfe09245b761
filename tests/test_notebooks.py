"""The notebooks of examples/ run as they stand, put out what is stored in them, and stay small."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from notebooks import ROOT, executed, outline

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
BYTES = 300_000


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_puts_out_what_is_stored(path: Path, tmp_path: Path):
    now = executed(path, tmp_path)
    if os.environ.get("LEAKGAUGE_REGENERATE"):
        nbformat.write(now, path)
    assert outline(now) == outline(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_executed_whole_and_small(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < BYTES
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {output.output_type for cell in notebook.cells for output in cell.get("outputs", [])}
    assert kinds
    assert "error" not in kinds
    assert str(ROOT) not in path.read_text(encoding="utf-8")


def test_there_are_two():
    assert {path.stem for path in NOTEBOOKS} == {"attack_your_own_vit", "read_a_run"}
