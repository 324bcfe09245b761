"""Folders that are taken away under a command."""

from __future__ import annotations

import shutil
from pathlib import Path

from forked import Act, Operations
from tally import Tally
from world import World, last_line

GONE = {
    "run": (".", "parts", "reconstructions"),
    "search": (".", "measured", "trials.db"),
    "score": (".", "parts", "reconstructions"),
    "report": (".", "figures"),
}


def taken_away(world: World, count: int) -> list[Tally]:
    """Takes every folder of every command away at ``count`` moments."""
    tally = Tally("folder removed under a command")
    for command, names in GONE.items():
        for name in names:
            for _ in range(count if command != "report" else max(1, count // 2)):
                take(world, command, name, tally)
    return [tally]


def _removing(path: Path) -> Act:
    def remove(event: str) -> None:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    return remove


def take(world: World, command: str, name: str, tally: Tally) -> None:
    place = world.fresh(f"taken-{command}")
    out = world.prepared(command, place)
    nth = world.random.randint(1, world.operations[command])
    ended = world.start(world.arguments(command, out), place, Operations(out, nth, _removing(out / name)))
    code, wrong = ended.wait(), []
    if code not in {0, 2}:
        wrong.append(f"it ended with {code}: {last_line(ended.text())}")
    if code == 0:
        wrong += [f"it ended with 0, yet {what}" for what in world.wrong_left(command, out)]
    if command == "score" and not _holds_all(world, out):
        # The run itself is gone, and nothing can score it: that is to be said.
        again = world.start(world.arguments(command, out), place)
        if again.wait() != 2:
            wrong.append(f"scored without its run, it ends with {again.code}: {last_line(again.text())}")
        again = world.start(world.arguments("run", out), place)
        wrong += [] if again.wait() == 0 else [f"run again, it ends with {again.code}: {last_line(again.text())}"]
    tally.judge(f"{command}: {name} at operation {nth}", [*wrong, *world.wrong_after(command, place, out)])
    shutil.rmtree(place)


def _holds_all(world: World, out: Path) -> bool:
    return all(
        (out / path.relative_to(world.run)).exists() for path in world.run.rglob("*.*") if path.suffix != ".lock"
    )
