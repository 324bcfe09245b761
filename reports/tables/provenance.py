"""Where a run comes from: what run.json states of it, and how to run it again."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from leakgauge.harness.system.files.yaml_text import write_yaml
from leakgauge.reports.analysis.run import LoadedRun
from leakgauge.reports.tables.table import Grid, Heading, flat, words

_SHOWN_ELSEWHERE = frozenset({"suite", "attacks", "cells", "provenance", "read"})


def _grid(run: LoadedRun) -> Grid:
    """Returns everything else that run.json states: code, packages, device, data and weights, sessions, counts."""
    provenance = run.manifest.get("provenance") or {}
    facts = {key: value for key, value in provenance.items() if key != "command"}
    facts |= {key: value for key, value in run.manifest.items() if key not in _SHOWN_ELSEWHERE}
    rows = [[words(key.replace("_", " ")), words(text)] for key, text in flat(facts)]
    return Grid(
        f"Provenance of {run.label}",
        [Heading("What", numeric=False), Heading("Value", numeric=False)],
        rows,
        sortable=False,
    )


def _command(run: LoadedRun) -> str:
    """Returns the command that reproduces the run: that of its first session."""
    sessions = run.manifest.get("sessions") or [{}]
    command = (run.manifest.get("provenance") or {}).get("command") or sessions[0].get("command")
    if isinstance(command, (list, tuple)):
        return shlex.join(str(part) for part in command)
    return str(command or "not stated")


class RunProvenance(NamedTuple):
    """Where a run comes from.

    Attributes:
        grid: Code, packages, device, data and weights, sessions, counts.
        command: What reproduces the run.
        suite_yaml: The resolved suite, which runs again as it stands.
    """

    grid: Grid
    command: str
    suite_yaml: str


def provenance(run: LoadedRun) -> RunProvenance:
    """Returns where a run comes from."""
    return RunProvenance(_grid(run), _command(run), write_yaml(run.suite.model_dump(mode="json")))
