"""The commands ``search`` and ``choose``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from leakgauge.harness.cli.json_output import AsJson, json_alone, print_json
from leakgauge.harness.errors import ConfigError, InterruptError
from leakgauge.harness.run.run_summary import check_none_failed
from leakgauge.harness.search.results.front import Front, FrontPoint, read_front
from leakgauge.harness.search.results.output import RESULTS, write_results
from leakgauge.harness.search.results.policy import PolicyLimits
from leakgauge.harness.search.results.policy import choose as choose_point
from leakgauge.harness.search.results.remeasure import EVALUATION, remeasure_front
from leakgauge.harness.search.space import Space, load_space
from leakgauge.harness.search.study import memo_folder, prepare_search, run_search
from leakgauge.harness.search.trials.memo import Memo
from leakgauge.harness.search.trials.storage import DATABASE
from leakgauge.harness.search.trials.trials import FailedTrial, tried
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.store.table_file import unguarded
from leakgauge.harness.suite.registry import load, plugins
from leakgauge.harness.system import console
from leakgauge.harness.system.containment import staying
from leakgauge.harness.system.files.locking import exclusive
from leakgauge.harness.system.files.output_paths import check_folder_free, check_still_there
from leakgauge.harness.system.files.sweeping import sweep
from leakgauge.harness.system.machine import choose_device

_out = console.output()
_HEADINGS = {
    "quality": ("quality", 4),
    "gflops_edge": ("edge GFLOP", 3),
    "gflops_total": ("GFLOP", 3),
    "tokens": ("tokens", 1),
    "payload_bytes": ("bytes", 0),
    "channel_uses": ("channel uses", 0),
    "latency_ms": ("ms", 1),
    "leakage": ("leakage dB", 2),
}


def search(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="A YAML file, or the name of a shipped space.")],
    out: Annotated[Path | None, typer.Option(help="Output folder; an interrupted search in it is resumed.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all.")] = None,
    sampler: Annotated[
        str | None, typer.Option(help="gp_screened, gp, botorch, nsga2, tpe, random, sweep or line.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampler.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Local processes.")] = 1,
    storage: Annotated[
        str | None, typer.Option(help="Database that workers share, postgresql://... ; default: a file in --out.")
    ] = None,
    remeasure: Annotated[
        bool, typer.Option(help="Also measure the front on the evaluation split, under attack.")
    ] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")] = None,
    as_json: AsJson = False,
) -> None:
    """Searches Pareto-optimal operating points on the search split; exit 4 where cells of --remeasure failed."""
    stated = {"trials": trials, "sampler": sampler, "seed": seed}
    options = [f"{key}={value}" for key, value in stated.items() if value is not None]
    resolved = load_space(space, [*(overrides or []), *options])
    try:
        folder = out or Path("runs") / f"search-{resolved.name}"
        # Held from the first measurement to the last file: figures and tables belong to one search.
        with json_alone(as_json), staying(space), exclusive(folder):
            sweep(folder, *memo_folder(folder).glob("*"))
            front, failed = _search(resolved, folder, device, workers, storage, remeasure)
        if as_json:
            print_json(_front_data(front, folder, failed))
        if remeasure:
            check_none_failed(RunFolder(folder / EVALUATION))
    except KeyboardInterrupt:
        raise InterruptError(
            "interrupted; finished trials are kept", hint="run the same command again to resume"
        ) from None


def _search(
    space: Space, out: Path, device: str, workers: int, storage: str | None, again: bool
) -> tuple[Front, list[FailedTrial]]:
    check_folder_free(out, holds=("run.json",))
    chosen = choose_device(device)
    if again and space.remeasure is None:
        raise ConfigError(
            "the space does not say with which attacks", where="--remeasure", hint="add `remeasure:` to it"
        )
    prepared = prepare_search(space, chosen, Memo(memo_folder(out)))
    _out.print(f"{space.name}: {space.trials} trials by {space.sampler} on {chosen}, {workers} worker(s), into {out}")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_out, transient=True, speed_estimate_period=600) as bar:
        task = bar.add_task("trials", total=space.trials)
        study = run_search(
            prepared, out, chosen, workers, storage, lambda done, total: bar.update(task, completed=done, total=total)
        )
    found = tried(study)
    front = write_results(prepared, found, out)
    for name in sorted(plugins("search_figures")):
        load("search_figures", name)(out)
    check_still_there((out / name for name in (*RESULTS, *([] if storage else [DATABASE]))), out)
    # Communication cost is told both ways: papers count tokens, radios bytes.
    sent = ("tokens",) if "payload_bytes" in front.objectives and "tokens" not in front.objectives else ()
    _out.print(_table(front.points, (*front.objectives, *sent)))
    for one in found.failed:
        _out.print(f"note: trial {one.number} failed: {one.reason}", markup=False, soft_wrap=True)
    _out.print(f"{len(front.points)} points on the front. Results in {out}", soft_wrap=True)
    if again:
        assert space.remeasure is not None
        path = remeasure_front(front, space.remeasure, out, chosen, workers)
        _out.print(f"measured again on the evaluation split: {path}", soft_wrap=True)
        _out.print(_relations(unguarded(pd.read_csv(path.with_name("dominance.csv")))))
    return front, found.failed


def _front_data(front: Front, folder: Path, failed: Sequence[FailedTrial]) -> dict[str, Any]:
    points = [
        {"name": one.name, "channel": one.channel.model_dump(mode="json"), "metrics": one.metrics}
        for one in front.points
    ]
    said = [{"trial": one.number, "reason": one.reason} for one in failed]
    return {"search": folder, "objectives": front.objectives, "points": points, "failed": said}


def _relations(pairs: pd.DataFrame) -> Table:
    """Counts for every baseline how many points of the front dominate it, and how many it dominates."""
    kinds = ("clearly dominates", "dominates", "neither", "is dominated", "is clearly dominated", "unscored")
    table = Table(title="points of the front against baselines, on the evaluation split", header_style="bold")
    for heading in ("baseline", *kinds):
        table.add_column(heading, justify="left" if heading == "baseline" else "right", no_wrap=True)
    for other, rows in pairs.groupby("other", sort=False):
        counts = rows["relation"].value_counts()
        table.add_row(str(other), *(str(counts.get(kind, 0)) for kind in kinds))
    return table


def _table(points: tuple[FrontPoint, ...], objectives: tuple[str, ...]) -> Table:
    table = Table(header_style="bold")
    table.add_column("operating point", no_wrap=True)
    table.add_column("channel", no_wrap=True)
    for name in objectives:
        table.add_column(_HEADINGS[name][0], justify="right", no_wrap=True)
    for point in points:
        values = [f"{point.metrics[name]:.{_HEADINGS[name][1]}f}" for name in objectives]
        table.add_row(point.name, str(point.channel), *values)
    return table


def choose(
    front: Annotated[Path, typer.Argument(metavar="FRONT", help="front.json of a search.")],
    snr_db: Annotated[float | None, typer.Option(help="Es/N0 of the channel, in dB.")] = None,
    max_bytes: Annotated[float | None, typer.Option(help="Payload bytes an image.")] = None,
    max_tokens: Annotated[float | None, typer.Option(help="Tokens sent an image.")] = None,
    max_channel_uses: Annotated[float | None, typer.Option(help="Complex symbols an image.")] = None,
    max_gflops_edge: Annotated[float | None, typer.Option(help="GFLOP an image on the edge.")] = None,
    max_gflops_total: Annotated[float | None, typer.Option(help="GFLOP an image, edge and server.")] = None,
    max_leakage: Annotated[float | None, typer.Option(help="Leakage in dB, by the search's proxy attack.")] = None,
    min_quality: Annotated[float | None, typer.Option(help="Task quality in [0, 1].")] = None,
    as_json: AsJson = False,
) -> None:
    """Picks the operating point of best quality within the limits, and prints it as a suite would state it."""
    stated = {
        "payload_bytes": max_bytes,
        "tokens": max_tokens,
        "channel_uses": max_channel_uses,
        "gflops_edge": max_gflops_edge,
        "gflops_total": max_gflops_total,
        "leakage": max_leakage,
    }
    most = {name: limit for name, limit in stated.items() if limit is not None}
    read: Front = read_front(front)
    point = choose_point(read, PolicyLimits(snr_db, most, min_quality))
    names = tuple(name for name in _HEADINGS if name in point.metrics)
    stated_point = _stated(read, point)
    if as_json:
        print_json(
            {
                "name": point.name,
                "channel": point.channel.model_dump(mode="json"),
                "metrics": point.metrics,
                "point": stated_point,
            }
        )
        return
    _out.print(_table((point,), names))
    print_json(stated_point)


def _stated(front: Front, point: FrontPoint) -> dict[str, Any]:
    return front.operating_point(point.name).model_dump(mode="json")
