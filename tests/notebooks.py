"""Executes a notebook of examples/ in a folder of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
SHOWN = ("text/plain", "image/png", "text/html", "application/json")


def executed(path: Path, folder: Path) -> Any:
    """Returns the notebook with what its cells put out now; raises where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "LEAKGAUGE_CACHE", "OMP_NUM_THREADS")}
    places = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(place for place in places if place),
        "LEAKGAUGE_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    try:
        NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(folder)}}).execute()
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            # Progress on standard error is not worth keeping.
            for kind in set(output.get("data", {})) - set(SHOWN):
                del output["data"][kind]
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def outline(notebook: Any) -> list[tuple[str, list[str]]]:
    """Returns what each cell puts out, by kind: what must stay the same when figures move."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [(cell.source, [_kind(output) for output in cell.outputs]) for cell in cells]


def _kind(output: Any) -> str:
    return str(output.get("name") or "+".join(sorted(output.get("data", {}))))
