"""Races samplers on one search space: ``python -m leakgauge.benchmarks.studies.search_race --space photos --out DIR``.

Every sampler gets equal trials, seed by seed. Trials repeat exactly, and what any of them measured is kept and used by
all. The record is resumed: a sampler and seed that it holds with enough trials is not run again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from leakgauge.benchmarks.studies.command_line import start
from leakgauge.harness.errors import ConfigError, StoreError
from leakgauge.harness.run.executors import one_thread
from leakgauge.harness.scoring.statistics import Interval, mean_interval
from leakgauge.harness.search.results.output import hypervolumes
from leakgauge.harness.search.sampling.samplers import ADAPTIVE
from leakgauge.harness.search.space import SAMPLERS, Space, load_space
from leakgauge.harness.search.study import Prepared, prepare_search, run_search
from leakgauge.harness.search.trials.memo import Memo
from leakgauge.harness.search.trials.trials import finished
from leakgauge.harness.store.provenance import collect
from leakgauge.harness.store.run_folder import write_atomic
from leakgauge.harness.system.machine import choose_device
from leakgauge.harness.values.seeding import Streams

COLD = "_cold"
"""Suffix of an adaptive sampler that goes without the warm start."""
ENTRANTS = ("gp_screened", "gp", "gp_cold", "nsga2", "tpe", "nsga2_cold", "tpe_cold", "random", "sweep", "line")
_COLOURS = (
    "#0072b2",
    "#000000",
    "#56b4e9",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#1b1e23",
    "#5d6671",
    "#8c564b",
)
_DASHES = (
    "-",
    (0, (7, 2)),
    "--",
    "-.",
    ":",
    (0, (5, 1)),
    (0, (3, 1, 1, 1)),
    (0, (1, 1)),
    (0, (5, 5)),
    (0, (3, 5, 1, 5)),
)
_err = Console(stderr=True, width=140)
Record = dict[str, list[float]]


def entered(space: Space, entrant: str, seed: int) -> Space:
    """Returns the space for one entrant and seed.

    Raises:
        ConfigError: There is no such sampler.
    """
    sampler = entrant.removesuffix(COLD)
    cold = entrant != sampler
    if sampler not in SAMPLERS or (cold and sampler not in ADAPTIVE):
        raise ConfigError(f"no entrant {entrant!r}", where="--sampler", hint=f"known: {', '.join(ENTRANTS)}")
    changed: dict[str, Any] = {"sampler": sampler, "seed": seed, **({"warm_start": 0} if cold else {})}
    return space.model_copy(update=changed)


def run_one(space: Space, out: Path, device: torch.device, memo: Memo) -> list[float]:
    """Runs one search; returns the hypervolume after each trial."""
    prepared: Prepared = prepare_search(space, device, memo)
    study = run_search(prepared, out, device, 1, None, lambda done, total: None)
    return hypervolumes(finished(study)[: space.trials], prepared.objectives)


def paired(record: Record, first: str, other: str, seeds: list[int], trials: int) -> Interval | None:
    """Returns the mean difference of final hypervolumes, seed by seed, with its 95 % interval; None where some lack."""
    pairs = [(record.get(f"{first}/{seed}"), record.get(f"{other}/{seed}")) for seed in seeds]
    if any(a is None or b is None or min(len(a), len(b)) < trials for a, b in pairs):
        return None
    differences = np.array([a[trials - 1] - b[trials - 1] for a, b in pairs if a is not None and b is not None])
    return mean_interval(differences, None, Streams(0, ("race",)))


def draw(record: Record, entrants: list[str], seeds: list[int], trials: int) -> Figure:
    """Draws the median hypervolume against trials, with the range over the seeds."""
    figure = Figure(figsize=(7.4, 4.6), layout="constrained")
    axes = figure.subplots()
    for i, entrant in enumerate(entrants):
        curves = np.array([record[f"{entrant}/{seed}"][:trials] for seed in seeds])
        places, colour = np.arange(1, trials + 1), _COLOURS[i % len(_COLOURS)]
        style: Any = _DASHES[i % len(_DASHES)]
        axes.plot(places, np.median(curves, axis=0), color=colour, linestyle=style, label=entrant.replace("_", " "))
        axes.fill_between(places, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.10, linewidth=0)
    axes.set_xlabel("trials")
    axes.set_ylabel(f"hypervolume (median and range of {len(seeds)} seeds)")
    axes.grid(color="#d5dae0", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2, fontsize=8)
    return figure


def _read(path: Path, key: str) -> Record:
    if not path.is_file():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    if data["space"] != key:
        raise StoreError("the record is of another space", where=str(path), hint="choose another --out")
    found: Record = data["hypervolume"]
    return found


def _table(record: Record, entrants: list[str], seeds: list[int], trials: int) -> Table:
    table = Table(title=f"hypervolume after {trials} trials, {len(seeds)} seeds", header_style="bold")
    for name in ("sampler", "median", "least", "most", f"{entrants[0]} minus it (95 %)"):
        table.add_column(name, justify="left" if name == "sampler" else "right")
    for entrant in entrants:
        last = np.array([record[f"{entrant}/{seed}"][trials - 1] for seed in seeds])
        found = paired(record, entrants[0], entrant, seeds, trials)
        difference = "" if found is None else f"{found.mean:+.5f} ({found.lo:+.5f} to {found.hi:+.5f})"
        table.add_row(entrant, *(f"{v:.5f}" for v in (np.median(last), last.min(), last.max())), difference)
    return table


def main(
    space: Annotated[str, typer.Option(help="A YAML file, or the name of a shipped space.")] = "photos",
    out: Annotated[Path, typer.Option(help="Where race.json, race.svg and race.png go.")] = Path("runs/search-race"),
    sampler: Annotated[list[str] | None, typer.Option(help="Entrants; the first is compared with the rest.")] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    first_seed: Annotated[int, typer.Option(help="Seeds count from here; a design is judged on fresh ones.")] = 0,
    trials: Annotated[int, typer.Option(min=2)] = 60,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
) -> None:
    """Runs the race and writes its record, table and figure."""
    chosen, entrants, numbers = (
        choose_device(device),
        list(sampler or ENTRANTS),
        list(range(first_seed, first_seed + seeds)),
    )
    resolved = load_space(space, [*(overrides or []), f"trials={trials}"])
    key = resolved.model_dump_json(exclude={"trials", "sampler", "seed", "baselines", "remeasure", "description"})
    record, memo = _read(out / "race.json", key), Memo(out / "measured")
    with one_thread():
        for seed in numbers:
            for entrant in entrants:
                name = f"{entrant}/{seed}"
                if len(record.get(name, [])) < trials:
                    record[name] = run_one(entered(resolved, entrant, seed), out / "searches" / name, chosen, memo)
                    data = {"space": key, "hypervolume": record, "provenance": collect(chosen)}
                    write_atomic(out / "race.json", json.dumps(data, indent=1).encode())
                _err.print(f"{name}: {record[name][trials - 1]:.5f}", highlight=False)
    Console(width=120).print(_table(record, entrants, numbers, trials))
    figure = draw(record, entrants, numbers, trials)
    for kind in ("svg", "png"):
        figure.savefig(out / f"race.{kind}", dpi=160)


if __name__ == "__main__":
    start(main)
