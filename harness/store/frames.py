"""Data frames of exactly the columns that the result schema states."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from leakgauge.harness.system.plain_text import plain
from leakgauge.harness.values.columns import Column

_PANDAS_KIND: dict[str, Any] = {"text": "object", "int": "int64", "float": "float64"}


def typed_frame(rows: Iterable[dict[str, Any]], columns: tuple[Column, ...]) -> pd.DataFrame:
    """Builds a data frame with exactly ``columns``, in order and of their kinds; absent numbers are NaN.

    Texts are made plain here too: a lone carriage return would end a row of a CSV.
    """
    # Before pandas sees them: it cannot hold lone surrogates.
    safe = [{name: plain(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows]
    frame = pd.DataFrame(safe, columns=[c.name for c in columns])
    for column in columns:
        series = frame[column.name]
        if column.kind == "text":
            frame[column.name] = series.astype(object).where(series.notna(), "").astype(str).astype(object)
        else:
            frame[column.name] = series.astype(_PANDAS_KIND[column.kind])
    return frame
