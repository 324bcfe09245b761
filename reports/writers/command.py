"""The command ``report``."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast

import typer

from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.registry import load, plugins
from leakgauge.harness.system import console
from leakgauge.harness.system.containment import staying
from leakgauge.harness.system.files.locking import exclusive
from leakgauge.harness.system.files.output_paths import check_folder_free, check_still_there
from leakgauge.harness.system.files.sweeping import sweep
from leakgauge.harness.system.plain_text import plain
from leakgauge.reports.analysis.run import Writer, load_runs

_out = console.output()
_COLLECT_AFTER = 50_000
"""Objects by which memory must have grown before Python looks for cycles; its own 700 cost a tenth of the time."""


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Looks for garbage rarely, and not among what is there already: libraries, and the runs."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[Path, typer.Option(help="Where to write the report.")],
) -> None:
    """Writes the report of one or more runs: HTML, Markdown, CSV and figures."""
    check_folder_free(out)
    loaded = load_runs([RunFolder.open(path) for path in runs])
    with exclusive(out), staying("report"), _rare_collections():
        sweep(out, out / "figures")
        written = [cast(Writer, load("reports", name))(loaded, out) for name in sorted(plugins("reports"))]
        check_still_there((path for paths in written for path in paths or ()), out)
    _out.print(f"report: {plain(str(out / 'index.html'))}", soft_wrap=True, markup=False)
