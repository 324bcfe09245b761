"""Kills: a command is ended by a signal at a moment drawn at random, and run again."""

from __future__ import annotations

import shutil
import signal
import time

from forked import Operations, killing
from tally import Tally
from world import World, last_line

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SHARES = {"run": 0.4, "search": 0.3, "score": 0.22, "report": 0.08}
"""Of the kills, by command; a report takes longest."""
DRAWS = 5


def kills(world: World, count: int) -> list[Tally]:
    """Kills every command at ``count`` moments in all: every third at a file operation, the others by the clock."""
    return [kills_of(world, command, max(3, round(count * share))) for command, share in SHARES.items()]


def kills_of(world: World, command: str, count: int) -> Tally:
    tally = Tally(f"kill of {command}")
    for at in range(count):
        sign = SIGNALS[at % len(SIGNALS)]
        by_clock = (at // len(SIGNALS)) % 3 != 2 if count > len(SIGNALS) else at % 2 == 0
        for _ in range(DRAWS):
            if _kill(world, command, sign, by_clock, tally):
                break
    return tally


def _kill(world: World, command: str, sign: signal.Signals, by_clock: bool, tally: Tally) -> bool:
    """Kills once; False where the command had ended before."""
    place = world.fresh(f"kill-{command}")
    out = world.prepared(command, place)
    arguments = world.arguments(command, out)
    if by_clock:
        moment = world.random.uniform(0.0, world.cpu_s[command])
        name = f"{sign.name} after {moment:.2f} CPU s"
        ended = world.start(arguments, place)
        while ended.poll() is None and ended.cpu_now() < moment:
            time.sleep(0.002)
        if ended.code is None:
            ended.signal(sign)
    else:
        nth = world.random.randint(1, world.operations[command])
        name = f"{sign.name} at file operation {nth}"
        ended = world.start(arguments, place, Operations(out, nth, killing(sign)))
    code = ended.wait()
    if code != 0:
        wrong = []
        if code not in {-sign, *([130] if sign is signal.SIGINT else [])}:
            wrong.append(f"it ended with {code}: {last_line(ended.text())}")
        if "Traceback" in ended.text():
            wrong.append("it printed a traceback")
        tally.judge(name, [*wrong, *world.wrong_after(command, place, out)])
    shutil.rmtree(place)
    return code != 0
