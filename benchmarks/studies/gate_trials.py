"""How often the gate is right, on real runs: ``python -m leakgauge.benchmarks.studies.gate_trials --out DIR``.

One baseline of seed 0, then for every further seed a run of the unchanged code and one of each planted regression.
Resumed where it was interrupted: a run that is complete is not run again.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from leakgauge.benchmarks.studies.command_line import start
from leakgauge.harness.cli import app
from leakgauge.harness.errors import PluginError
from leakgauge.harness.store.run_folder import write_atomic
from leakgauge.harness.system.files.yaml_text import write_yaml

CODES = {0: "pass", 1: "worse than allowed", 3: "cannot tell"}
STEPS = 60
JUDGED = {"inconclusive": "judge", "lower_bounds": "judge"}
"""Limits that compare one lower bound with another of the same budget: what shows a longer training."""


def _suite(reduction: Any, send_sizes: bool, steps: int) -> dict[str, Any]:
    return {
        "name": "gated",
        "description": "A small suite with a closed-form attack and a trained one, sizes withheld.",
        "task": "photos",
        "defense": {"name": "split_pipeline", "cut": 3, "codec": "float16"},
        "operating_points": [
            {"name": "undefended"},
            {"name": "merged", "reduction": reduction, "send_sizes": send_sizes},
        ],
        "threat_models": [{"name": "server", "auxiliary": {"n": 256}, "knows": {"sizes": False}}],
        "attacks": [
            "floor_mean",
            "ridge",
            {"name": "set_decoder", "steps": steps, "width": 48, "layers": 2, "batch_size": 32},
        ],
        "evaluation_images": 70,
    }


MERGING = {"name": "threshold", "thresholds": 0.9}
VARIANTS: dict[str, tuple[dict[str, Any], str]] = {
    "unchanged": (_suite(MERGING, False, STEPS), "pass"),
    "merging switched off": (_suite("none", False, STEPS), "worse than allowed"),
    "sizes no longer withheld": (_suite(MERGING, True, STEPS), "worse than allowed"),
    "attack trained 4x longer": (_suite(MERGING, False, 4 * STEPS), "worse than allowed"),
    "attack crippled (2 steps)": (_suite(MERGING, False, 2), "cannot tell"),
}
"""By name: the suite, and how a gate that counts the trained attack ought to end."""


def _call(*arguments: str) -> int:
    """Runs a command of leakgauge in this process; returns its exit code."""
    code = app(list(arguments), standalone_mode=False)
    return int(code or 0)


def _run(name: str, suite: dict[str, Any], seed: int, out: Path) -> Path:
    folder = out / "runs" / f"{name.replace(' ', '_')}-{seed}"
    path = out / "suites" / f"{name.replace(' ', '_')}.yaml"
    write_atomic(path, write_yaml(suite).encode())
    code = _call("run", str(path), "--out", str(folder), "--set", f"seeds=[{seed}]", "--workers", "1")
    if code:
        raise PluginError(f"the run ended with exit code {code}", where=str(folder), hint="see its log")
    return folder


def _gates(run: Path, out: Path) -> dict[str, str]:
    """Returns how each way of gating ends."""
    found = {}
    for name, options in (("closed form", []), ("trained", []), ("judged", ["--limits", str(out / "judged.yaml")])):
        baseline = out / ("closed_form.json" if name == "closed form" else "trained.json")
        found[name] = CODES[_call("gate", str(run), "--baseline", str(baseline), *options)]
    return found


def main(
    out: Annotated[Path, typer.Option(help="Where runs, baselines and trials.json go.")] = Path("runs/gate-trials"),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variant.")] = 20,
) -> None:
    """Runs the trials, and counts how the gate ended."""
    base = _run("base", VARIANTS["unchanged"][0], 0, out)
    write_atomic(out / "judged.yaml", write_yaml(JUDGED).encode())
    _call("baseline", str(base), "--out", str(out / "closed_form.json"), "--attack", "ridge")
    _call("baseline", str(base), "--out", str(out / "trained.json"))
    ended: dict[str, dict[str, list[str]]] = {}
    for name, (suite, _) in VARIANTS.items():
        for seed in range(1, seeds + 1):
            for way, outcome in _gates(_run(name, suite, seed, out), out).items():
                ended.setdefault(name, {}).setdefault(way, []).append(outcome)
            write_atomic(out / "trials.json", (json.dumps(ended, indent=1) + "\n").encode())
    table = Table(title=f"how the gate ended, {seeds} seeds", header_style="bold")
    for heading in ("variant", "counting ridge alone", "counting all", "counting all, bounds judged"):
        table.add_column(heading)
    for name, ways in ended.items():
        counts = (", ".join(f"{n} {outcome}" for outcome, n in Counter(found).items()) for found in ways.values())
        table.add_row(name, *counts)
    Console(width=160).print(table)


if __name__ == "__main__":
    start(main)
