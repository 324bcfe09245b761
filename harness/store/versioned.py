"""Reads versioned JSON files into their models, with one line for whatever is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from leakgauge.harness.errors import StoreError, missing_key
from leakgauge.harness.suite.schema_problems import schema_error
from leakgauge.harness.suite.text_source import TextSource
from leakgauge.harness.system.files.bounded_file import MIB, read_json, read_text
from leakgauge.harness.system.plain_text import quoted

MAX_BYTES = 256 * MIB

Model = TypeVar("Model", bound=BaseModel)


def read_versioned(path: Path, model: type[Model], version: int, noun: str, hint: str, *, retired: str = "") -> Model:
    """Reads a JSON file that states its ``schema_version``.

    Args:
        path: The file.
        model: What it holds.
        version: The version that is written.
        noun: What to call the file.
        hint: How a user gets such a file.
        retired: Why earlier versions are not read any more, where there were any.

    Raises:
        StoreError: It is not there, is no such file, or of another version; several problems are told at once.
    """
    where = str(path)
    data: object = read_json(path, MAX_BYTES, hint=hint, unscored=True)
    if isinstance(data, dict) and "schema_version" not in data:
        what, meant = missing_key("schema_version", data, [name for name in model.model_fields if name in data])
        place = _source(path, data).place((meant,)) if meant else where
        raise StoreError(f"no {noun}: {what}", where=place, hint=hint)
    found = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(found, bool) or found != version:
        why = retired if retired and type(found) is int and 0 < found < version else "is unknown"
        what = f"{noun} version {quoted(found)} {why}; this leakgauge reads version {version}"
        raise StoreError(what, where=where, hint=hint)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise schema_error(error, data, _source(path, data), model, kind=StoreError, hint=hint) from error
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise StoreError(f"no {noun}: {type(error).__name__}", where=where, hint=hint) from error


def _source(path: Path, data: object) -> TextSource:
    """Returns the text once more, for the lines, which only an error needs."""
    return TextSource.of_json(str(path), read_text(path, MAX_BYTES, hint="check the path"), data)
