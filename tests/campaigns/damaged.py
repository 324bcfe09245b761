"""Bits that flip in what is kept between commands, and entries that are swapped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from tally import Tally
from world import World, copy_run, last_line


def damages(world: World, count: int) -> list[Tally]:
    """Damages every entry of every cache ``count`` times, and swaps every two neighbours."""
    return [damaged_tokens(world, count), _memos(world, count), _parts(world, count), _pictures(world, count)]


def _flip(world: World, path: Path) -> str:
    data = bytearray(path.read_bytes())
    at = world.random.randrange(8 * len(data))
    data[at // 8] ^= 1 << (at % 8)
    path.write_bytes(data)
    return f"bit {at} of {path.name}"


def _swaps(paths: list[Path]) -> Iterator[tuple[Path, Path]]:
    yield from pairwise(paths)


def _swap(one: Path, other: Path) -> str:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return f"{one.name} and {other.name} swapped"


def _entries(folder: Path, *endings: str) -> list[Path]:
    return sorted(path for ending in endings for path in folder.rglob(f"*{ending}"))


def _rounds(world: World, make: Callable[[], tuple[Path, list[Path]]], count: int) -> Iterator[tuple[Path, list[str]]]:
    """Yields a place and what was damaged in it: a bit of each entry, ``count`` times, and every swap.

    Entries are checked one by one, so that all may be damaged at once.
    """
    for _ in range(count):
        place, entries = make()
        yield place, [_flip(world, path) for path in entries]
    for first in (0, 1):
        place, entries = make()
        if len(entries) > first + 1:
            yield place, [_swap(*pair) for pair in list(_swaps(entries))[first::2]]


def _each(tally: Tally, names: list[str], wrong: list[str]) -> None:
    for name in names:
        tally.judge(name, wrong)


def damaged_tokens(world: World, count: int) -> Tally:
    tally, kept = Tally("token cache: bit flipped, entries swapped"), world.fresh("kept")
    ended = world.start(world.arguments("run", kept / "out"), kept)
    assert ended.wait() == 0, ended.text()

    def make() -> tuple[Path, list[Path]]:
        place = world.fresh("tokens")
        shutil.copytree(kept / "cache", place / "cache")
        return place, _entries(place / "cache", ".safetensors", ".passed")

    for place, names in _rounds(world, make, count):
        _each(tally, names, world.wrong_after("run", place, place / "out"))
        shutil.rmtree(place)
    return tally


def _memos(world: World, count: int) -> Tally:
    """Entries of what a search measured, in a folder whose trials are asked for again."""
    tally, kept = Tally("measurements of a search: flipped, swapped"), world.finished["search"]

    def make() -> tuple[Path, list[Path]]:
        place = world.fresh("measured")
        shutil.copytree(kept / "measured", place / "out" / "measured")
        return place, _entries(place / "out" / "measured", ".json")

    for place, names in _rounds(world, make, count):
        _each(tally, names, world.wrong_after("search", place, place / "out"))
        shutil.rmtree(place)
    return tally


def _parts(world: World, count: int) -> Tally:
    """Parts of a run that is resumed."""
    tally = Tally("parts of a run: flipped, swapped")

    def make() -> tuple[Path, list[Path]]:
        place = world.fresh("parts")
        copy_run(world.run, place / "out")
        return place, _entries(place / "out" / "parts", ".json")

    for place, names in _rounds(world, make, count):
        _each(tally, names, world.wrong_after("run", place, place / "out"))
        shutil.rmtree(place)
    return tally


def _pictures(world: World, count: int) -> Tally:
    """Pictures that `score` reads: refused, whereupon `run` mends the run, or scored as they were."""
    tally = Tally("pictures of a run: flipped, swapped")

    def make() -> tuple[Path, list[Path]]:
        place = world.fresh("pictures")
        copy_run(world.run, place / "out")
        return place, _entries(place / "out" / "reconstructions", ".png")

    for place, names in _rounds(world, make, count):
        out, wrong = place / "out", []
        ended = world.start(world.arguments("score", out), place)
        if ended.wait() not in {0, 2}:
            wrong.append(f"score ended with {ended.code}: {last_line(ended.text())}")
        wrong += [f"scored: {what}" for what in world.wrong_left("score", out) if "pictures" not in what]
        wrong += world.wrong_after("run", place, out)
        wrong += world.wrong_after("score", place, out)
        _each(tally, names, wrong)
        shutil.rmtree(place)
    return tally
