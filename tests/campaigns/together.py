"""Two processes at a time on everything that is shared."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tally import Tally
from world import World, last_line, search_left

Pair = tuple[list[str], list[str]]


def together(world: World, count: int) -> list[Tally]:
    """Starts every pair ``count`` times, the second a moment drawn at random after the first."""
    tally = Tally("two processes on what is shared")
    for name, pair, check in pairs(world):
        for _ in range(count):
            start_both(world, name, pair, check, tally)
    return [tally]


def pairs(world: World) -> Iterator[tuple[str, Callable[[Path], Pair], Callable[[Path], list[str]]]]:
    """Yields what is started together in a place, and what is to be right there afterwards."""

    def one_out(first: str, second: str) -> Callable[[Path], Pair]:
        def commands(place: Path) -> Pair:
            out = world.prepared("score" if "score" in {first, second} else first, place)
            made = [world.arguments(name, out) for name in (first, second)]
            if second == "report" and first != second:
                made[1] = world.arguments("report", place / "report", out)
            return made[0], made[1]

        return commands

    def same(command: str) -> Callable[[Path], list[str]]:
        return lambda place: world.wrong_after(command, place, place / "out")

    for command in ("run", "search", "score", "report"):
        yield f"two of {command} into one folder", one_out(command, command), same(command)
    yield "score and report on one run", one_out("score", "report"), same("score")
    yield "run and score on one run", one_out("run", "score"), same("score")
    yield "run and report on one run", one_out("run", "report"), same("run")

    def one_cache(place: Path) -> Pair:
        return world.arguments("run", place / "out"), world.arguments("run", place / "other")

    def both(place: Path) -> list[str]:
        return [*world.wrong_left("run", place / "other"), *same("run")(place)]

    yield "two runs on one token cache", one_cache, both

    def one_study(place: Path) -> Pair:
        storage = ["--storage", f"sqlite:///{place / 'shared.db'}"]
        return (
            [*world.arguments("search", place / "out"), *storage],
            [*world.arguments("search", place / "other"), *storage],
        )

    yield "two searches on one fresh database and study", one_study, lambda place: _one_study(world, place)


def _one_study(world: World, place: Path) -> list[str]:
    """Both saw one study to its end: each trial once, and measured as it is measured alone."""
    again = world.start(
        [*world.arguments("search", place / "out"), "--storage", f"sqlite:///{place / 'shared.db'}"], place
    )
    if again.wait():
        return [f"run again, it ends with {again.code}: {last_line(again.text())}"]
    wanted, wrong = len(world.expected["search"]["trials.csv"]), []
    own = search_left(place / "out")["trials.csv"]
    if len(own) not in {wanted, wanted + 1}:  # both may have begun the last one
        wrong.append(f"{len(own)} trials instead of {wanted}")
    if own.duplicated().any():
        wrong.append("a trial stands there twice")
    known = world.expected["search"]["trials.csv"]
    shares = [name for name in known.columns if name.startswith("share_")]
    merged = own.merge(known, on=shares, suffixes=("", "_alone"))
    for name in known.columns:
        if name not in shares and not merged[name].equals(merged[f"{name}_alone"]):
            wrong.append(f"{name} is another than alone")
    return wrong


def start_both(
    world: World, name: str, pair: Callable[[Path], Pair], check: Callable[[Path], list[str]], tally: Tally
) -> None:
    place = world.fresh("two")
    first, second = pair(place)
    started = [world.start(first, place)]
    pause = world.random.choice([0.0, world.random.uniform(0.0, 1.0)]) * world.cpu_s[first[0]]
    while started[0].poll() is None and started[0].cpu_now() < pause:
        time.sleep(0.002)
    started.append(world.start(second, place))
    wrong = []
    for ended in started:
        code = ended.wait()
        # 2: the other one holds the folder, and that is said. Somebody must get his way.
        if code not in {0, 2}:
            wrong.append(f"{ended.arguments[0]} ended with {code}: {last_line(ended.text())}")
        if code == 2 and not _excused(name, ended.text()):
            wrong.append(f"{ended.arguments[0]} was refused: {last_line(ended.text())}")
    if all(ended.code for ended in started):
        wrong.append("both were refused")
    if name.startswith(("two runs", "two searches")) and any(ended.code for ended in started):
        wrong.append("one of them was refused")
    tally.judge(name, [*wrong, *check(place)])
    shutil.rmtree(place)


def _excused(name: str, text: str) -> bool:
    """The other one holds the folder; or a report of a run that has only begun finds no run yet."""
    return "at work in this folder" in text or (name.startswith("run and") and "no run here" in text)
