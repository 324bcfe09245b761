"""Runs a plan: measures what is missing and assembles the tables."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

import torch

from leakgauge.harness.errors import LeakgaugeError, PluginError, StoreError
from leakgauge.harness.run.jobs import measure_cells
from leakgauge.harness.run.manifest import Session, manifest_of, resolved_points
from leakgauge.harness.run.plan import Plan
from leakgauge.harness.store.assembly import Assembler
from leakgauge.harness.store.partial import write_index
from leakgauge.harness.store.parts import Parts
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.planning import (
    Cell,
)
from leakgauge.harness.suite.schema import Suite, parse_suite
from leakgauge.harness.system.files.locking import LOCK, exclusive
from leakgauge.harness.system.files.sweeping import half_written
from leakgauge.harness.values.columns import SCHEMA_VERSION
from leakgauge.harness.values.stored_shapes import SessionStatement

Progress = Callable[[int, int], None]
"""Called with (cells done, cells in all)."""


def check_folder(out: Path) -> None:
    """Checks that a run may live in ``out``, as far as that can be told before anything is loaded.

    Raises:
        StoreError: It is taken by something else, or by a run of another schema version, or cannot be a folder.
    """
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise StoreError("cannot write there: a file is in the way", where=str(there), hint="choose another --out")
    store = RunFolder(out)
    if not store.exists():
        if out.is_dir() and any(path.name != LOCK and not half_written(path) for path in out.iterdir()):
            raise StoreError("the folder is not empty and holds no run", where=str(out), hint="choose another --out")
        return
    version = store.manifest()["schema_version"]
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"the folder holds a run of schema version {version}, which is read but not resumed",
            where=str(out),
            hint="choose another --out, or delete the folder",
        )


def open_store(plan_: Plan, out: Path) -> tuple[RunFolder, list[SessionStatement]]:
    """Opens the run folder for this plan; returns it with the sessions that worked on it before."""
    store = RunFolder(out)
    if not store.exists():
        return store, []
    manifest = store.manifest()
    if manifest["plan_key"] != plan_.key:
        raise StoreError(
            "the folder holds a run of another suite, data or weights",
            where=str(out),
            hint="choose another --out, or delete the folder",
        )
    return store, list(manifest["sessions"])


def run_suite(
    plan_: Plan,
    out: Path,
    device: torch.device,
    workers: int,
    progress: Progress,
    *,
    retry_failed: bool = True,
    fail_fast: bool = False,
    say: Callable[[str], None] = lambda line: None,
    watched: Path | None = None,
) -> RunFolder:
    """Runs what is missing of a plan in ``out`` and writes the tables.

    Interrupted at any point, another call resumes and ends with the same numbers. Cells that failed are tried again,
    and cells that other code measured are measured again.

    Args:
        plan_: The plan.
        out: The run folder, which no other process may use meanwhile.
        device: Where to compute.
        workers: Processes.
        progress: Called as cells get done.
        retry_failed: Whether cells that failed in an earlier call are tried again.
        fail_fast: Whether the first cell that fails ends the run.
        say: Told what a user should know before the run goes on.
        watched: Folder in which every process tells what it is at (``system.standing``); None for nowhere.

    Raises:
        LeakgaugeError: The folder cannot be used, a worker died, or cells were not measured.
    """
    check_folder(out)
    with exclusive(out):
        store, sessions = open_store(plan_, out)
        store.sweep()
        parts = Parts(store, plan_.codes)
        session = Session(
            store, manifest_of(plan_, device), sessions, workers, lambda: resolved_points(plan_.cells, parts)
        )
        try:
            for line in parts.remarks(plan_.code, retry_failed):
                say(line)
                store.log(line)
            session.begin()
            write_index(store, plan_.context.evaluation)
            store.write_images("originals", plan_.context.evaluation.pixels.permute(0, 2, 3, 1).numpy())
            left = left_of(plan_, parts, retry_failed=retry_failed)
            for cell in left:
                store.drop_part(cell.key)
            tick = _ticking(plan_, parts, progress)
            measure_cells(plan_.context, left, store, workers, tick, fail_fast=fail_fast, watched=watched)
            assemble(store, plan_, parts)
            parts.check_all_there()
            session.end("complete")
            parts.check_all_there()
        except BaseException as error:
            # What was measured so far can be read and reported before the run is resumed. The cause is what is told.
            with suppress(LeakgaugeError):
                if store.exists():
                    assemble(store, plan_, parts)
                session.end("interrupted" if isinstance(error, KeyboardInterrupt | BrokenProcessPool) else "failed")
            if isinstance(error, BrokenProcessPool):
                raise PluginError("a worker process died", where=str(out), hint="run again to resume") from error
            raise
    return store


def left_of(plan_: Plan, parts: Parts, *, retry_failed: bool) -> list[Cell]:
    """Returns the cells that the folder does not hold yet, or that failed there and are to be tried again."""
    standing, kept = parts.all(), {"done"} if retry_failed else {"done", "failed"}
    return [cell for cell in plan_.cells if standing[cell.key] not in kept]


def _ticking(plan_: Plan, parts: Parts, progress: Progress) -> Callable[[], None]:
    def tick() -> None:
        counts = parts.counts()
        progress(counts["done"] + counts["failed"], len(plan_.cells))

    tick()
    return tick


def assemble(store: RunFolder, plan_: Plan, parts: Parts | None = None) -> None:
    """Writes cells.csv and images.parquet from the finished parts."""
    parts = Parts(store, plan_.codes) if parts is None else parts
    assembler = Assembler(plan_.context.evaluation, plan_.suite.baseline_point, plan_.suite.seeds[0])
    tables = assembler.tables(parts.read())
    store.write_tables(tables.cells, tables.images, tables.kinds)


def suite_of(store: RunFolder) -> Suite:
    """Reads the resolved suite of a stored run."""
    return parse_suite(store.manifest()["suite"], where=str(store.path / "run.json"))
