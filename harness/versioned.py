"""Reads versioned JSON files into their models, with one line for whatever is wrong."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from leakgauge.harness.bounded_file import MIB, read_json
from leakgauge.harness.errors import StoreError
from leakgauge.harness.plain_text import quoted
from leakgauge.harness.stored_shapes import first_problem

MAX_BYTES = 256 * MIB

Model = TypeVar("Model", bound=BaseModel)


def read_versioned(
    path: Path, model: type[Model], version: int, noun: str, mend: str, *, older: Collection[int] = ()
) -> Model:
    """Reads a JSON file that states its ``schema_version``.

    Args:
        path: The file.
        model: What it holds.
        version: The version that is written.
        noun: What to call the file.
        mend: How a user gets such a file.
        older: Versions that are read as well.

    Raises:
        StoreError: It is not there, is no such file, or of another version.
    """
    where = str(path)
    data: Any = read_json(path, MAX_BYTES, mend=mend, unscored=True)
    found = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(found, bool) or found not in (version, *older):
        what = f"{noun} version {quoted(found)} is unknown; this leakgauge reads version {version}"
        raise StoreError(what, where=where, mend=mend)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        what, place = first_problem(error)
        raise StoreError(f"{place}: {what}" if place else what, where=where, mend=mend) from error
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise StoreError(f"no {noun}: {type(error).__name__}", where=where, mend=mend) from error
