"""Faults of every kind, and whether every command gets over them: ``make faults``.

After each fault the command is run again and must end complete, with the rows of an undisturbed run, times aside.
``--only kill`` for some kinds, ``--seed`` for other moments. Exit code 0 where nothing failed, else 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from damaged import damaged_tokens, damages
from full_disk import full_disks, inject
from kills import kills, kills_of
from taken_away import take, taken_away
from tally import Tally, table
from together import pairs, start_both, together
from world import World

HOW = """\
Commands: `run`, `search`, `report` and `score` of a toy task (4 cells, 5 trials), each in a process forked from one
that has imported the libraries; searches draw no figures. Moments are drawn with seed {seed}. Of the kills two thirds
are by the clock (a signal to the process group after a share of the CPU seconds of an undisturbed command), one third
at a file operation (raised by the process itself); folders are removed, and ENOSPC is injected, at file operations too.
SIGKILL, SIGTERM and SIGINT take turns. After each fault the command is run again and must end complete, with exactly
the rows of an undisturbed run, times aside."""
Kind = Callable[[World, int], list[Tally]]
KINDS: dict[str, tuple[Kind, int]] = {
    "kill": (kills, 110),
    "disk": (full_disks, 6),
    "removed": (taken_away, 3),
    "damaged": (damages, 4),
    "together": (together, 3),
}
"""Kinds of fault, and how many of each are tried, by a measure of its own."""


def sample(world: World) -> list[Tally]:
    """Tries a few faults of `run` and `score`, for the tests."""
    disk = Tally("full disk (ENOSPC injected at a file operation)")
    removed, two = Tally("folder removed under a command"), Tally("two processes on what is shared")
    found = [kills_of(world, "run", 3), kills_of(world, "score", 1)]
    inject(world, "run", disk)
    take(world, "run", "parts", removed)
    name, pair, check = next(pairs(world))
    start_both(world, name, pair, check, two)
    return [*found, disk, removed, damaged_tokens(world, 1), two]


def malformed_files(folder: Path) -> list[Tally]:
    """Tries malformed files of every kind."""
    from malformed import campaign

    found = campaign(folder)
    for failure in (failure for one in found.values() for failure in one.failures):
        print(f"    FAILED {ascii(failure)[1:-1]}", flush=True)
    return [Tally(f"malformed {name}", one.tried, one.failures) for name, one in found.items()]


def campaign(folder: Path, seed: int, only: str, share: float) -> list[Tally]:
    """Tries faults of all kinds whose name holds ``only``; failures are printed as they come."""
    tallies: list[Tally] = []

    def add(found: list[Tally], begun: float) -> None:
        for one in found:
            print(f"{one.kind}: {one.tried} tried, {len(one.failures)} failed", flush=True)
        print(f"    in {time.monotonic() - begun:.0f} s", flush=True)
        tallies.extend(found)

    wanted = {name: kind for name, kind in KINDS.items() if only in name}
    if wanted:
        begun = time.monotonic()
        world = World(folder, seed)
        used = ", ".join(f"{name} {seconds:.1f}" for name, seconds in world.cpu_s.items())
        print(f"undisturbed, in CPU seconds: {used}; begun in {time.monotonic() - begun:.0f} s", flush=True)
        for kind, count in wanted.values():
            begun = time.monotonic()
            add(kind(world, max(1, round(count * share))), begun)
    if only in "malformed":
        begun = time.monotonic()
        (folder / "malformed").mkdir()
        add(malformed_files(folder / "malformed"), begun)
    return tallies


def main() -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of all moments")
    parser.add_argument("--only", default="", help=f"{', '.join([*KINDS, 'malformed'])}; default: all")
    parser.add_argument("--sample", action="store_true", help="a few faults only")
    parser.add_argument("--share", type=float, default=1.0, help="share of the faults to try; not of malformed files")
    args = parser.parse_args()
    print(HOW.format(seed=args.seed), flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        if args.sample:
            tallies = sample(World(Path(folder), args.seed, ("run", "score"), twice=False))
        else:
            tallies = campaign(Path(folder), args.seed, args.only, args.share)
    print(f"\n{table(tallies)}\n\nin {time.monotonic() - begun:.0f} s")
    return 1 if not tallies or any(one.failures for one in tallies) else 0


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    os._exit(ended)  # some libraries complain at length when they are unloaded
