"""Command line of the curves: ``python -m leakgauge.benchmarks.studies.curves TASKS.yaml --out DIR``."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from leakgauge.benchmarks.studies.command_line import start
from leakgauge.benchmarks.studies.curves.drawing import Panel, draw_curves
from leakgauge.benchmarks.studies.curves.points import StudyPoint, measure_curves
from leakgauge.harness.contracts.task import Task
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.registry import create, name_and_options
from leakgauge.harness.system.files.bounded_file import MIB, read_text
from leakgauge.harness.system.files.yaml_text import read_yaml
from leakgauge.harness.system.machine import choose_device

_err = Console(stderr=True, width=140)


def main(
    tasks: Annotated[Path, typer.Argument(help="YAML: a list of tasks, each {title: ..., name: ..., options}.")],
    out: Annotated[Path, typer.Option(help="Where curves.csv, curves.json and curves.png go.")] = Path("runs/curves"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's.")] = None,
) -> None:
    """Measures and draws quality over FLOPs and tokens sent for six reductions on each task; resumes in ``out``."""
    if threads is not None:
        torch.set_num_threads(threads)
    chosen = choose_device(device)
    out.mkdir(parents=True, exist_ok=True)
    panels, before = [], _measured(out)  # before the first write, which knows the first task only
    for title, task in _tasks(tasks):
        _err.print(f"{title}: {task.victim().name}, {len(task.split('evaluation'))} evaluation images", markup=False)
        points = measure_curves(task, chosen, _say, before.get(_identity(task), []))
        panels.append(Panel(title, task.quality_name, points, _identity(task)))
        _write(panels, out)
    print(f"written to {out}")


def _tasks(path: Path) -> list[tuple[str, Task]]:
    """Reads the tasks; raises ConfigError where the file is not a list of them."""
    try:
        entries = read_yaml(read_text(path, MIB, hint="give a YAML file"))
    except ValueError as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), hint="give a YAML file") from error
    if not isinstance(entries, list) or not all(isinstance(e, dict) and {"title", "name"} <= set(e) for e in entries):
        raise ConfigError(
            "not a list of tasks", where=str(path), hint="write - {title: ..., name: imagefolder, path: ...}"
        )
    return [(str(entry["title"]), _task(entry)) for entry in entries]


def _task(entry: dict[str, Any]) -> Task:
    name, options = name_and_options("tasks", {key: value for key, value in entry.items() if key != "title"}, "tasks")
    return create("tasks", name, options, where="tasks")


def _identity(task: Task) -> str:
    """Returns what decides a task's points: its victim and its images."""
    parts = (task.victim().weights_hash, task.split("calibration").digest(), task.split("evaluation").digest())
    return "-".join((task.name, str(task.version), *parts))


def _measured(out: Path) -> dict[str, list[StudyPoint]]:
    """Returns the points that an earlier run into the same folder measured, by what decides them."""
    path = out / "curves.json"
    found: dict[str, list[StudyPoint]] = {}
    if path.exists():
        names = [field.name for field in fields(StudyPoint)]
        for row in json.loads(path.read_text(encoding="utf-8"))["points"]:
            found.setdefault(row["identity"], []).append(StudyPoint(**{name: row[name] for name in names}))
    return found


def _say(point: StudyPoint) -> None:
    _err.print(
        f"  {point.method} {point.strength}: quality {point.quality:.3f}, {point.flops_share:.0%} of the FLOPs, "
        f"{point.tokens_share:.0%} of the tokens",
        markup=False,
        highlight=False,
    )


def _write(panels: list[Panel], out: Path) -> None:
    """Writes all that is measured so far, each file whole or not at all."""
    rows = [
        {"task": panel.title, "identity": panel.identity} | asdict(point) for panel in panels for point in panel.points
    ]
    partial = out / "curves.csv.partial"
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(out / "curves.csv")
    about = {"torch": torch.__version__, "tasks": [{"title": p.title, "quality": p.quality} for p in panels]}
    partial = out / "curves.json.partial"
    partial.write_text(json.dumps(about | {"points": rows}, indent=1) + "\n", encoding="utf-8")
    partial.replace(out / "curves.json")
    draw_curves(panels, out / "curves.png")


if __name__ == "__main__":
    start(main)
