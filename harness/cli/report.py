"""The command ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness import console
from harness.containment import staying
from harness.locking import exclusive
from harness.output_paths import check_folder_free, check_still_there
from harness.plain_text import plain
from harness.registry import load, plugins
from harness.store import RunFolder
from harness.sweeping import sweep

_out = console.output()


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[Path, typer.Option(help="Where to write the report.")],
) -> None:
    """Writes the report of one or more runs: HTML, Markdown, CSV and figures."""
    check_folder_free(out)
    stores = [RunFolder.open(path) for path in runs]
    with exclusive(out), staying("report"):
        sweep(out, out / "figures")
        written = [load("reports", name)(stores, out) for name in sorted(plugins("reports"))]
        check_still_there((path for paths in written for path in paths or ()), out)
    _out.print(f"report: {plain(str(out / 'index.html'))}", soft_wrap=True, markup=False)
