"""Runs a suite: checks everything that can be checked, then measures what is missing and assembles the tables."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from leakgauge.harness import planning
from leakgauge.harness.assembly import Assembler
from leakgauge.harness.attributes import answers
from leakgauge.harness.auxiliary import shifted_of
from leakgauge.harness.bench import Bench
from leakgauge.harness.code_digest import Code, cell_code, code_digest
from leakgauge.harness.containment import contained
from leakgauge.harness.contracts import SPLITS, Task
from leakgauge.harness.errors import ConfigError, DataError, LeakgaugeError, PluginError, StoreError
from leakgauge.harness.executors import one_thread
from leakgauge.harness.jobs import measure_cells
from leakgauge.harness.locking import LOCK, exclusive
from leakgauge.harness.manifest import manifest_of, resolved_points
from leakgauge.harness.partial import write_index
from leakgauge.harness.parts import Parts
from leakgauge.harness.planning import Cell, build_attack, build_defense, by_exposure, check_knowledge, content_hash
from leakgauge.harness.probing import AttributeProbe
from leakgauge.harness.reading import Reading
from leakgauge.harness.registry import create
from leakgauge.harness.results import SCHEMA_VERSION
from leakgauge.harness.scoring.metrics import metrics_of
from leakgauge.harness.session import Session
from leakgauge.harness.splits import check_disjoint
from leakgauge.harness.store import RunFolder
from leakgauge.harness.suite import Suite, parse_suite
from leakgauge.harness.suite_options import check_suite
from leakgauge.harness.sweeping import half_written
from leakgauge.harness.text_source import naming_lines
from leakgauge.harness.token_cache import check_once
from leakgauge.harness.undefended import undefended
from leakgauge.harness.views import eavesdropping_channel

Progress = Callable[[int, int], None]
"""Called with (cells done, cells in all)."""


def choose_device(name: str) -> torch.device:
    """Turns ``auto``, ``cpu`` or ``cuda`` into a device.

    Raises:
        ConfigError: The name is unknown, or there is no such device.
    """
    if name not in {"auto", "cpu", "cuda"}:
        raise ConfigError(f"unknown device {name!r}", where="--device", mend="give auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device here", where="--device", mend="give --device auto or cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


@dataclass(frozen=True)
class Plan:
    """A checked suite, ready to run, and what was read to check it."""

    suite: Suite
    bench: Bench
    data: dict[str, str]
    cells: list[Cell]
    reading: Reading

    @cached_property
    def codes(self) -> dict[str, str]:
        """Digest of the code that measures each cell, by the cell's key."""
        return {cell.key: content_hash(cell_code(self.suite, cell)) for cell in self.cells}

    @property
    def code(self) -> dict[str, Code]:
        """The code that the plan's cells are measured by, by its digest."""
        return {content_hash(code): code for code in (cell_code(self.suite, cell) for cell in self.cells)}

    @property
    def key(self) -> str:
        """Content hash by which a run folder recognises the run that it holds."""
        return content_hash({"suite": self.suite.model_dump(mode="json"), "data": self.data})


def _check_plugins(bench: Bench, cells: list[Cell]) -> None:
    """Builds every plug-in that the suite names, once, so that bad options show before anything is measured.

    Annotations have been checked; what options must be together, constructors tell. Attribute probes are also checked
    to ask for something that the task knows.
    """
    suite = bench.suite
    metrics_of(suite)
    for channel in suite.channels:
        create("channels", channel.plugin.name, channel.plugin.options, where=f"channels: {channel.label}")
    for named in suite.attacks:
        attacker = build_attack(named)
        if isinstance(attacker, AttributeProbe):
            _check_answers(named.label, cells)
            answers(bench.task, bench.evaluation, attacker, f"attacks: {named.label}")
    for cells_of_exposure in by_exposure(cells):
        exposure = cells_of_exposure[0].exposure
        defense = build_defense(exposure.defense, exposure.point.name, bench.victim, bench.device)
        eavesdropping_channel(exposure.threat_model, defense)


def _check_answers(label: str, cells: list[Cell]) -> None:
    """Refuses an attribute probe where its own images are of a shifted domain, of which no answers are known."""
    for cell in cells:
        model = cell.exposure.threat_model
        if cell.attack.label == label and model.auxiliary.domain == "shifted":
            raise ConfigError(
                f"attack {label!r} must know the attribute of its own images, which shifted ones do not have",
                where=f"threat model {model.name!r}: auxiliary.domain",
                mend="leave this pair out of `cells`",
            )


def prepare(suite: Suite, device: torch.device) -> Plan:
    """Loads the task, checks its splits, plans the cells, and checks knowledge and plug-ins.

    Raises:
        LeakgaugeError: What is wrong: with its plug-ins and options all of it, else the first thing.
    """
    with naming_lines(suite.source):
        return _prepared(suite, device)


def _prepared(suite: Suite, device: torch.device) -> Plan:
    # What is quick to check comes first; these cells are planned again once the data is known.
    check_suite(suite)
    check_knowledge(planning.plan(suite, ""))
    # One thread here too: the baseline quality must not depend on where it was computed.
    with one_thread(), contained("loading", f"task {suite.task.name!r}"):
        bench = Bench.build(suite, device)
    _check_plugins(bench, planning.plan(suite, ""))
    splits: dict[str, Any] = {name: bench.task.split(name) for name in SPLITS}
    shifted = shifted_of(bench.task, suite.threat_models)
    if shifted is not None:
        splits["shifted"] = shifted
    seen = {name: images.full_digest() for name, images in splits.items()}
    check_once(
        content_hash({"check": "disjoint splits", "splits": seen, "code": code_digest()}),
        lambda: check_disjoint(splits),
    )
    data = data_of(bench) | ({} if shifted is None else {"split_shifted": shifted.digest()})
    cells = planning.plan(suite, content_hash(data))
    if not cells:
        raise ConfigError("the suite plans no cell", where=suite.name, mend="check the `cells` blocks")
    return Plan(suite, bench, data, cells, _read(bench))


def data_of(bench: Bench) -> dict[str, str]:
    """Returns what tells the data, weights and task of a run from others."""
    data = {f"split_{name}": bench.task.split(name).digest() for name in SPLITS}
    return {**data, "victim": bench.victim.weights_hash, "task": f"{bench.task.name} v{bench.task.version}"}


def _read(bench: Bench) -> Reading:
    """Returns what the task read, and how good its victim is without a defense."""
    reading = bench.task.reading()
    if not isinstance(reading, Reading):
        what = f"`reading` returns {type(reading).__name__}, not leakgauge.harness.reading.Reading"
        raise PluginError(what, where=f"task {bench.task.name!r}", mend="return one, or leave the method out")
    return replace(reading, undefended=undefended(bench))


def check_complete(suite: Suite) -> None:
    """Checks that this machine has what the task needs, and names all that it lacks at once.

    Raises:
        DataError: Something is missing.
    """
    task: Task = create("tasks", suite.task.name, suite.task.options, where="task")
    missing = task.missing()
    if missing:
        raise DataError(
            f"{len(missing)} missing: {'; '.join(missing)}",
            where=f"{suite.name}: task {task.name!r}",
            mend="provide them here, or run the suite where they are",
        )


def check_folder(out: Path) -> None:
    """Checks that a run may live in ``out``, as far as that can be told before anything is loaded.

    Raises:
        StoreError: It is taken by something else, or by a run of another schema version, or cannot be a folder.
    """
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise StoreError("cannot write there: a file is in the way", where=str(there), mend="choose another --out")
    store = RunFolder(out)
    if not store.exists():
        if out.is_dir() and any(path.name != LOCK and not half_written(path) for path in out.iterdir()):
            raise StoreError("the folder is not empty and holds no run", where=str(out), mend="choose another --out")
        return
    version = store.manifest()["schema_version"]
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"the folder holds a run of schema version {version}, which is read but not resumed",
            where=str(out),
            mend="choose another --out, or delete the folder",
        )


def open_store(plan_: Plan, out: Path) -> tuple[RunFolder, list[dict[str, Any]]]:
    """Opens the run folder for this plan; returns it with the sessions that worked on it before."""
    store = RunFolder(out)
    if not store.exists():
        return store, []
    manifest = store.manifest()
    if manifest["plan_key"] != plan_.key:
        raise StoreError(
            "the folder holds a run of another suite, data or weights",
            where=str(out),
            mend="choose another --out, or delete the folder",
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
        watched: Folder in which every process tells what it is at (``leakgauge.harness.standing``); None for nowhere.

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
            write_index(store, plan_.bench.evaluation)
            store.write_images("originals", plan_.bench.evaluation.pixels.permute(0, 2, 3, 1).numpy())
            left = left_of(plan_, parts, retry_failed=retry_failed)
            for cell in left:
                store.drop_part(cell.key)
            tick = _ticking(plan_, parts, progress)
            measure_cells(plan_.bench, left, store, workers, tick, fail_fast=fail_fast, watched=watched)
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
                raise PluginError("a worker process died", where=str(out), mend="run again to resume") from error
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
    assembler = Assembler(plan_.bench.evaluation, plan_.suite.baseline_point, plan_.suite.seeds[0])
    tables = assembler.tables(parts.read())
    store.write_tables(tables.cells, tables.images, tables.kinds)


def suite_of(store: RunFolder) -> Suite:
    """Reads the resolved suite of a stored run."""
    return parse_suite(store.manifest()["suite"], where=str(store.path / "run.json"))
