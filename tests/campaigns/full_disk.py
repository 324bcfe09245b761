"""Full disks: a small tmpfs where this user may mount one, and operations that the child refuses itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from forked import Operations, Running, full
from tally import Tally
from world import COMMANDS, World, last_line

ROOMY_K = 65_536


def full_disks(world: World, count: int) -> list[Tally]:
    """Fills the disk at ``count`` points of every command, in two ways."""
    mounted, injected = Tally("full disk (tmpfs)"), Tally("full disk (ENOSPC injected at a file operation)")
    may = _may_mount(world)
    if not may:
        mounted.remark = "no right to mount one here"
    for command in COMMANDS:
        for _ in range(count if command != "report" else max(1, count // 3)):
            if may:
                _mounted(world, command, mounted)
            inject(world, command, injected)
    return [mounted, injected]


def _judged(world: World, command: str, ended: Running, place: Path, out: Path) -> list[str]:
    """Says what is wrong with the end of a command whose disk was full, and after it was run again."""
    code, wrong = ended.wait(), []
    # 0: what did not fit was not needed. 2: the disk. 4: cells that were not measured.
    if code not in {0, 2, 4}:
        wrong.append(f"it ended with {code}: {last_line(ended.text())}")
    if code == 0:
        wrong += world.wrong_left(command, out)
    if "Traceback" in ended.text():
        wrong.append("it printed a traceback")
    return wrong


def inject(world: World, command: str, tally: Tally) -> None:
    place = world.fresh(f"full-{command}")
    out = world.prepared(command, place)
    nth = world.random.randint(1, world.operations[command])
    ended = world.start(world.arguments(command, out), place, Operations(out, nth, full, again=True))
    wrong = _judged(world, command, ended, place, out)
    tally.judge(f"{command} at operation {nth}", [*wrong, *world.wrong_after(command, place, out)])
    shutil.rmtree(place)


def _may_mount(world: World) -> bool:
    place = world.fresh("mount")
    may = _mount(place, 256)
    if may:
        _call("umount", str(place))
    return may


def _call(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _mount(place: Path, kib: int, how: str = "") -> bool:
    return _call("mount", "-t", "tmpfs", "-o", f"{how}size={kib}k", "tmpfs", str(place))


def _mounted(world: World, command: str, tally: Tally) -> None:
    place = world.fresh(f"tmpfs-{command}")
    disk = place / "disk"
    disk.mkdir()
    assert _mount(disk, ROOMY_K)
    try:
        out = world.prepared(command, disk)
        there = _kib(disk)
        kib = there + world.random.randint(0, max(8, _kib(world.finished[command]) - there))
        _mount(disk, max(kib, 4), "remount,")
        # The cache is on the same disk.
        ended = world.start(world.arguments(command, out), place, cache=disk / "cache")
        wrong = _judged(world, command, ended, place, out)
        _mount(disk, ROOMY_K, "remount,")
        wrong += world.wrong_after(command, place, out, cache=disk / "cache")
        tally.judge(f"{command} on {kib} KiB", wrong)
    finally:
        _call("umount", str(disk))
    shutil.rmtree(place)


def _kib(folder: Path) -> int:
    """Returns what a folder takes of a tmpfs, whose pages have 4 KiB."""
    return 4 * sum(-(-path.stat().st_size // 4096) for path in folder.rglob("*") if path.is_file())
