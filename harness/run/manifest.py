"""What run.json says of a run beside its status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from leakgauge.harness.contracts.probing import adapts, kind_of
from leakgauge.harness.run.executors import THREADS_PER_WORKER
from leakgauge.harness.run.plan import Plan
from leakgauge.harness.scoring.measures import described
from leakgauge.harness.scoring.metrics import metrics_of
from leakgauge.harness.store.code_digest import code_digest
from leakgauge.harness.store.parts import Parts
from leakgauge.harness.store.provenance import collect
from leakgauge.harness.suite.planning import Cell, build_attack


def manifest_of(plan_: Plan, device: torch.device) -> dict[str, Any]:
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
                "kind": kind_of(attack),
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


def resolved_points(cells: Iterable[Cell], parts: Parts) -> dict[str, Any]:
    """Returns ``operating_points`` of run.json: what calibration made of each, as its first cell that is done says.

    Nothing for points of which a suite leaves nothing to calibration, and for those that were not measured yet.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for cell in cells:
        name = cell.exposure.point.name
        if name not in found and parts.standing(cell.key) == "done":
            found[name] = parts.read_one(cell.key).head.resolved
    return {"operating_points": {name: resolved for name, resolved in found.items() if resolved}}
