"""Plans a run: checks everything of a suite that can be checked before anything is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from leakgauge.harness.contracts.probing import AttributeProbe
from leakgauge.harness.contracts.reading import Reading
from leakgauge.harness.contracts.task import Task
from leakgauge.harness.errors import ConfigError, DataError, PluginError
from leakgauge.harness.measurement.attacker_view import eavesdropping_channel
from leakgauge.harness.measurement.attributes import answers
from leakgauge.harness.measurement.auxiliary import shifted_of
from leakgauge.harness.measurement.context import RunContext
from leakgauge.harness.measurement.near_duplicates import check_disjoint
from leakgauge.harness.measurement.undefended import undefended
from leakgauge.harness.run.executors import one_thread
from leakgauge.harness.run.suite_options import check_suite
from leakgauge.harness.scoring.metrics import metrics_of
from leakgauge.harness.store.code_digest import Code, cell_code, code_digest
from leakgauge.harness.store.token_cache import check_once
from leakgauge.harness.suite import planning
from leakgauge.harness.suite.planning import (
    Cell,
    build_attack,
    build_defense,
    by_exposure,
    check_knowledge,
    content_hash,
)
from leakgauge.harness.suite.registry import create
from leakgauge.harness.suite.schema import Suite
from leakgauge.harness.suite.text_source import naming_lines
from leakgauge.harness.system.containment import contained
from leakgauge.harness.values.images import SPLITS


@dataclass(frozen=True)
class Plan:
    """A checked suite, ready to run, and what was read to check it."""

    suite: Suite
    context: RunContext
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


def _check_plugins(context: RunContext, cells: list[Cell]) -> None:
    """Builds every plug-in that the suite names, once, so that bad options show before anything is measured.

    Annotations have been checked; what options must be together, constructors tell. Attribute probes are also checked
    to ask for something that the task knows.
    """
    suite = context.suite
    metrics_of(suite)
    for channel in suite.channels:
        create("channels", channel.plugin.name, channel.plugin.options, where=f"channels: {channel.label}")
    for named in suite.attacks:
        attacker = build_attack(named)
        if isinstance(attacker, AttributeProbe):
            _check_answers(named.label, cells)
            answers(context.task, context.evaluation, attacker, f"attacks: {named.label}")
    for cells_of_exposure in by_exposure(cells):
        exposure = cells_of_exposure[0].exposure
        defense = build_defense(exposure.defense, exposure.point.name, context.victim, context.device)
        eavesdropping_channel(exposure.threat_model, defense)


def _check_answers(label: str, cells: list[Cell]) -> None:
    """Refuses an attribute probe where its own images are of a shifted domain, of which no answers are known."""
    for cell in cells:
        model = cell.exposure.threat_model
        if cell.attack.label == label and model.auxiliary.domain == "shifted":
            raise ConfigError(
                f"attack {label!r} must know the attribute of its own images, which shifted ones do not have",
                where=f"threat model {model.name!r}: auxiliary.domain",
                hint="leave this pair out of `cells`",
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
        context = RunContext.build(suite, device)
    _check_plugins(context, planning.plan(suite, ""))
    splits: dict[str, Any] = {name: context.task.split(name) for name in SPLITS}
    shifted = shifted_of(context.task, suite.threat_models)
    if shifted is not None:
        splits["shifted"] = shifted
    seen = {name: images.full_digest() for name, images in splits.items()}
    check_once(
        content_hash({"check": "disjoint splits", "splits": seen, "code": code_digest()}),
        lambda: check_disjoint(splits),
    )
    data = data_of(context) | ({} if shifted is None else {"split_shifted": shifted.digest()})
    cells = planning.plan(suite, content_hash(data))
    if not cells:
        raise ConfigError("the suite plans no cell", where=suite.name, hint="check the `cells` blocks")
    return Plan(suite, context, data, cells, _read(context))


def data_of(context: RunContext) -> dict[str, str]:
    """Returns what tells the data, weights and task of a run from others."""
    data = {f"split_{name}": context.task.split(name).digest() for name in SPLITS}
    return {**data, "victim": context.victim.weights_hash, "task": f"{context.task.name} v{context.task.version}"}


def _read(context: RunContext) -> Reading:
    """Returns what the task read, and how good its victim is without a defense."""
    reading = context.task.reading()
    if not isinstance(reading, Reading):
        what = f"`reading` returns {type(reading).__name__}, not leakgauge.harness.contracts.reading.Reading"
        raise PluginError(what, where=f"task {context.task.name!r}", hint="return one, or leave the method out")
    return replace(reading, undefended=undefended(context))


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
            hint="provide them here, or run the suite where they are",
        )
