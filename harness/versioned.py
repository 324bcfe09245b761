"""Reads versioned JSON files into their models, with one line for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from harness.errors import StoreError

Model = TypeVar("Model", bound=BaseModel)


def read_versioned(path: Path, model: type[Model], version: int, noun: str, mend: str) -> Model:
    """Reads a JSON file that states its ``schema_version``.

    Args:
        path: The file.
        model: What it holds.
        version: The one version that is known.
        noun: What to call the file.
        mend: How a user gets such a file.

    Raises:
        StoreError: It is not there, is no such file, or of another version.
    """
    where = str(path)
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        found = data.get("schema_version") if isinstance(data, dict) else None
        if found != version:
            raise StoreError(
                f"{noun} version {found!r} is unknown; this leakgauge reads version {version}", where=where, mend=mend
            )
        return model.model_validate(data)
    except OSError as error:
        raise StoreError(f"cannot read: {error.strerror or error}", where=where, mend=mend) from error
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise StoreError(f"{place}: {problem['msg']}", where=where, mend=mend) from error
    except ValueError as error:
        raise StoreError(f"no JSON: {error}", where=where, mend=mend) from error
