"""What run.json says: of the run, and of every call that worked on it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

import torch

from leakgauge.harness.contracts.probing import adapts, kind_of
from leakgauge.harness.run.executors import THREADS_PER_WORKER
from leakgauge.harness.run.plan import Plan
from leakgauge.harness.scoring.measures import described
from leakgauge.harness.scoring.metrics import metrics_of
from leakgauge.harness.store.code_digest import code_digest
from leakgauge.harness.store.parts import Parts
from leakgauge.harness.store.provenance import collect
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.planning import Cell, build_attack
from leakgauge.harness.values.stored_shapes import RunManifest, SessionStatement


def manifest_of(plan_: Plan, device: torch.device) -> RunManifest:
    """Returns run.json of a plan, but for its status and its sessions."""
    suite, context = plan_.suite, plan_.context
    attacks = {config.label: build_attack(config) for config in suite.attacks}
    return {
        "plan_key": plan_.key,
        "suite": suite.model_dump(mode="json"),
        "task": {
            "name": context.task.name,
            "version": context.task.version,
            "quality_name": context.task.quality_name,
            "victim": context.victim.name,
            "image_shape": list(context.evaluation.pixels.shape[1:]),
            "evaluation_images": len(context.evaluation),
        },
        "data": plan_.data,
        "judge": dict(context.judging.described()),
        "read": plan_.reading.to_json(),
        "attacks": {
            label: {
                "plugin": attack.name,
                "kind": kind_of(attack) or "",
                "floor": getattr(attack, "floor", False),
                "knowledge": attack.knowledge._asdict(),
                "training": attack.training,
                "layout": attack.layout,
                "adaptive": adapts(attack),
            }
            for label, attack in attacks.items()
        },
        "metrics": described(metrics_of(suite)),
        "cells": [cell.key for cell in plan_.cells],
        "code": plan_.code,
        "threads_per_worker": THREADS_PER_WORKER,
        "provenance": collect(device, code_digest()),
    }


def resolved_points(cells: Iterable[Cell], parts: Parts) -> RunManifest:
    """Returns ``operating_points`` of run.json: what calibration made of each, as its first cell that is done says.

    Nothing for points of which a suite leaves nothing to calibration, and for those that were not measured yet.
    """
    found: dict[str, Mapping[str, object]] = {}
    for cell in cells:
        name = cell.exposure.point.name
        if name not in found and parts.standing(cell.key) == "done":
            found[name] = parts.read_one(cell.key).head.resolved
    return {"operating_points": {name: {**resolved} for name, resolved in found.items() if resolved}}


class Session:
    """One call that works on a run.

    Args:
        store: The run folder.
        stated: What run.json says of the run, whoever works on it.
        earlier: The sessions before this one.
        workers: Processes.
        found: Returns what run.json says of what was measured so far.
    """

    def __init__(
        self,
        store: RunFolder,
        stated: RunManifest,
        earlier: Sequence[SessionStatement],
        workers: int,
        found: Callable[[], RunManifest],
    ) -> None:
        self._store, self._found, self._start = store, found, datetime.now(UTC)
        commit = stated["provenance"].get("commit")
        self._own: SessionStatement = {
            "started": self._start.isoformat(timespec="seconds"),
            "command": " ".join(["leakgauge", *map(shlex.quote, sys.argv[1:])]),
            "workers": workers,
            "commit": str(commit) if commit else None,
        }
        self._manifest: RunManifest = {**stated, "sessions": [*earlier, self._own]}

    def begin(self) -> None:
        """Writes run.json of a run that is going on."""
        self._store.write_manifest({**self._manifest, "status": "running"})

    def end(self, status: str) -> None:
        """Writes how it ended, and when."""
        now = datetime.now(UTC)
        self._own["finished"] = now.isoformat(timespec="seconds")
        self._own["seconds"] = round((now - self._start).total_seconds(), 1)
        seconds = sum(float(one.get("seconds", 0)) for one in self._manifest["sessions"])
        self._manifest["total_seconds"] = round(seconds, 1)
        self._store.write_manifest({**self._manifest, **self._found(), "status": status})
