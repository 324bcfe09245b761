"""Steps a second of the set decoder with float32 and bfloat16, natively and with AVX-512 and AMX masked.

``python -m leakgauge.benchmarks.studies.speed.training`` prints a table; every setting is timed in a process of its
own, because torch reads the masks when it starts. ``*`` marks what `leakgauge.harness.store.number_type` chooses there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer

from leakgauge.benchmarks.studies.command_line import start
from leakgauge.benchmarks.studies.speed.timing import seconds_of
from leakgauge.harness.contracts.attack import Attack
from leakgauge.harness.contracts.task import Task
from leakgauge.harness.errors import PluginError
from leakgauge.harness.measurement.attacker_view import GrantedView
from leakgauge.harness.store import number_type
from leakgauge.harness.suite.planning import build_defense
from leakgauge.harness.suite.registry import create
from leakgauge.harness.suite.schema import PluginConfig, ThreatModel
from leakgauge.harness.values.seeding import Streams

MASKS = {"native": {}, "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}}
TYPES = {"float32": "none", "bfloat16": "all"}
ATTACK = "set_decoder"
DECODER = {"width": 48, "layers": 1, "peak_lr": 0.006, "double_check": False}
"""As in the suite `quick`."""
THRESHOLD = 0.9
IMAGES = 512
CPU = torch.device("cpu")


@dataclass(frozen=True)
class TrainingRow:
    """Steps a second of one setting, and whether it is the one that leakgauge chooses there."""

    mask: str
    number_type: str
    steps_per_second: float
    chosen: bool


def steps_per_second(steps: int, spec: dict[str, Any] = DECODER, images: int = IMAGES) -> float:
    """Returns the optimiser steps a second of an attacker's training in this process, on one thread.

    What a training costs beside its steps cancels, because one of ``steps`` is compared with one of half as many.
    """
    task: Task = create("tasks", "photos", {}, where="task")
    auxiliary, victim = task.split("attacker").evenly_spaced(images), task.victim()
    options = {"cut": 3, "codec": "float16", "reduction": {"name": "threshold", "thresholds": THRESHOLD}}
    defense = build_defense(PluginConfig(name="split_pipeline", **options), "threshold", victim, CPU)
    view = GrantedView(
        victim,
        defense,
        ThreatModel(),
        image_shape=(3, task.input_px(), task.input_px()),
        streams=Streams(0, ("attacker",)),
        batch_size=64,
        device=CPU,
    )
    view.observe(auxiliary)

    def fit(count: int) -> None:
        attack = cast(Attack, create("attacks", ATTACK, {**spec, "steps": count}, where="attack"))
        attack.fit(view, auxiliary, Streams(0))

    torch.set_num_threads(1)
    fit(2)
    whole, half = (min(seconds_of(partial(fit, n), CPU, cpu_time=True) for _ in range(2)) for n in (steps, steps // 2))
    return (steps - steps // 2) / max(whole - half, 1e-9)


def timed(mask: str, name: str, steps: int) -> TrainingRow:
    """Times one setting in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if key != number_type.VARIABLE} | MASKS[mask]
    code = (
        "import json, os; from leakgauge.harness.store import number_type; "
        "from leakgauge.benchmarks.studies.speed.training import steps_per_second; "
        "told = number_type.told(); os.environ[number_type.VARIABLE] = " + repr(TYPES[name]) + "; "
        f"print(json.dumps([told, steps_per_second({steps})]))"
    )
    root = str(Path(__file__).parents[4])
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PluginError(f"timing failed: {done.stderr.strip().splitlines()[-1:]}", where=f"{mask}, {name}")
    told, rate = json.loads(done.stdout.splitlines()[-1])
    return TrainingRow(mask, name, rate, {"none": "float32"}.get(told, "bfloat16") == name)


def table(rows: list[TrainingRow]) -> str:
    """Returns the rows as a Markdown table."""
    lines = ["| instruction sets | number type | steps a second |", "| --- | --- | ---: |"]
    return "\n".join(
        lines + [f"| {r.mask} | {r.number_type}{' *' * r.chosen} | {r.steps_per_second:.2f} |" for r in rows]
    )


def main(steps: Annotated[int, typer.Option(min=4, help="Optimiser steps to time.")] = 8) -> None:
    """Prints the steps a second of the set decoder by instruction sets and number type."""
    print(table([timed(mask, name, steps) for mask in MASKS for name in TYPES]))
    print("* what leakgauge chooses on this machine")


if __name__ == "__main__":
    start(main)
