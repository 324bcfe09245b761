"""Where results may go: never over a run, or over what they are made from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from leakgauge.harness.errors import StoreError

_HOLDS = {"run.json": "a run", "study.json": "a search"}
_OF_A_RUN = frozenset({"parts", "reconstructions", "attacks"})
_HINT = "choose another --out, RUN/report say"


def check_folder_free(out: Path, holds: Iterable[str] = tuple(_HOLDS)) -> None:
    """Checks, before anything is written, that a folder of results would not overwrite a run or a search.

    Args:
        out: The folder; it need not exist.
        holds: Which files mark what must not be there.

    Raises:
        StoreError: It holds one, or is one of a run's own folders.
    """
    for name in holds:
        if _there(out / name):
            raise StoreError(f"the folder holds {_HOLDS[name]}, which would be overwritten", where=str(out), hint=_HINT)
    if _run_folder_above(out / "anything") is not None:
        raise StoreError("the folder belongs to a run", where=str(out), hint=_HINT)


def check_file_free(path: Path, inputs: Iterable[Path] = (), option: str = "--out") -> None:
    """Checks, before anything is written, that a file of results would not overwrite a run or an input.

    Raises:
        StoreError: It would.
    """
    hint = f"choose another file for {option}"
    own = path.parent / "run.json"
    written = {"run.json", "cells.csv", "images.parquet", "quality_by_kind.csv", "log", "study.json", "trials.db"}
    if (path.name in written and (_there(own) or _there(path.parent / "study.json"))) or _run_folder_above(path):
        raise StoreError("that file belongs to a run or a search", where=str(path), hint=hint)
    for other in inputs:
        if _same(path, other):
            raise StoreError("that file is read by this command", where=str(path), hint=hint)


def check_still_there(paths: Iterable[Path], out: Path) -> None:
    """Checks, after the last was written, that what a command says it wrote is there.

    Raises:
        StoreError: Files were taken away meanwhile.
    """
    written = list(dict.fromkeys(paths))
    gone = [path for path in written if not _there(path)]
    if gone:
        raise StoreError(
            f"of {len(written)} files {len(gone)} were taken away while others were written: {gone[0].name} first",
            where=str(out),
            hint="write them again with the same command",
        )


def _run_folder_above(path: Path) -> Path | None:
    """Returns the run whose parts, pictures or curves lie beside this path; None where it is no such place."""
    folder = path.absolute().parent
    return folder.parent if folder.name in _OF_A_RUN and _there(folder.parent / "run.json") else None


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except (OSError, ValueError):
        return path.absolute() == other.absolute()
