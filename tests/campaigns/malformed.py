"""Malformed files of every kind that leakgauge reads: each is read, or refused in one line; nothing else.

``python tests/campaigns/malformed.py`` tries them all (more than 2,000, in this process) and prints a table; the fast
tests try a sample. Nothing is drawn at random: the same files every time.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
for _folder in (ROOT / "tests" / "reports", ROOT):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from simulated_runs import Simulation  # noqa: E402

from leakgauge.harness.errors import LeakgaugeError  # noqa: E402
from leakgauge.harness.run.inspect import read_photograph  # noqa: E402
from leakgauge.harness.search.results.front import Front, read_front, write_front  # noqa: E402
from leakgauge.harness.search.results.policy import PolicyLimits as Chosen  # noqa: E402
from leakgauge.harness.search.results.policy import choose  # noqa: E402
from leakgauge.harness.search.space import load_space  # noqa: E402
from leakgauge.harness.search.trials.storage import open_storage, open_study, sqlite_url  # noqa: E402
from leakgauge.harness.search.trials.trials import finished  # noqa: E402
from leakgauge.harness.store.cell_record import record_of  # noqa: E402
from leakgauge.harness.store.run_folder import RunFolder  # noqa: E402
from leakgauge.harness.suite.schema import load_suite  # noqa: E402
from leakgauge.harness.system.plain_text import plain  # noqa: E402
from leakgauge.harness.values.columns import KIND_COLUMNS  # noqa: E402
from leakgauge.harness.values.decoding import decode  # noqa: E402
from leakgauge.harness.values.learning_curve import LearningCurve  # noqa: E402
from leakgauge.harness.values.stored_shapes import StoredPart  # noqa: E402
from leakgauge.reports.analysis.identity import identity_of  # noqa: E402
from leakgauge.reports.analysis.operating_points import point_rows  # noqa: E402
from leakgauge.reports.analysis.run import LoadedRun, load_runs  # noqa: E402
from leakgauge.reports.analysis.summary import summarise  # noqa: E402
from leakgauge.reports.gate.baseline import baseline_of, read_baseline, write_baseline  # noqa: E402
from leakgauge.reports.gate.limits import read_limits  # noqa: E402
from leakgauge.reports.tables.provenance import provenance  # noqa: E402
from leakgauge.reports.tables.tables import (  # noqa: E402
    attacks_grid,
    cells_grid,
    threat_models_grid,
)

LONGEST_LINE = 200
SLOW_S = 20
KEY = "0123456789abcdef"
Change = tuple[str, Callable[[bytes], bytes]]
"""A name, and what becomes of the file."""


# -- what may stand in a place of structured data ---------------------------------------------------

_DEEP, _DIGITS, _HUGE = "@deep@", "@digits@", "@huge@"
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "minus one": -1,
    "1e308": 1e308,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "5000 digits": _DIGITS,
    "1e999": _HUGE,
    "empty text": "",
    "10000 characters": "x" * 10_000,
    "NUL": "a\x00b",
    "lone surrogate": "\ud800",
    "line break": "a\nb",
    "escape": "\x1b[2J\u202e",
    "path": "../../etc/passwd",
    "empty list": [],
    "empty mapping": {},
    "nested lists": [[[1]]],
    "mapping": {"name": {"name": {}}},
    "deep": _DEEP,
}
_RAW = {
    f'"{_DEEP}"': "[" * 3000 + "]" * 3000,
    f'"{_DIGITS}"': "9" * 5000,
    f'"{_HUGE}"': "1e999",
}


def _text(data: Any) -> bytes:
    """Writes data as JSON, which is YAML too."""
    text = json.dumps(data)
    for marker, raw in _RAW.items():
        text = text.replace(marker, raw)
    return text.encode()


def _places(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the places of structured data, of lists the first item only."""
    items = data.items() if isinstance(data, dict) else enumerate(data[:1]) if isinstance(data, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from _places(value, (*at, key))


def _at(data: Any, place: tuple[Any, ...], act: Callable[[Any, Any], None]) -> Any:
    """Returns a copy in which ``act(container, key)`` has changed a place."""
    copy = json.loads(json.dumps(data))
    node = copy
    for key in place[:-1]:
        node = node[key]
    act(node, place[-1])
    return copy


def _delete(node: Any, key: Any) -> None:
    del node[key]


def _rename(node: Any, key: Any) -> None:
    node["zzz\n\x1b"] = node.pop(key)


def structured(raw: bytes) -> Iterator[Change]:
    """Every place of JSON, or of YAML written so, removed, renamed, and replaced by every value."""
    data = json.loads(raw)
    yield from _whole()
    for place in _places(data):
        name = ".".join(map(str, place))[:60]
        yield f"{name} removed", lambda _, p=place: _text(_at(data, p, _delete))
        if isinstance(place[-1], str):
            yield f"{name} renamed", lambda _, p=place: _text(_at(data, p, _rename))
        for value, new in VALUES.items():
            yield (
                f"{name} = {value}",
                lambda _, p=place, v=new: _text(_at(data, p, lambda node, key: node.__setitem__(key, v))),
            )
    for value, new in VALUES.items():
        yield f"only {value}", lambda _, v=new: _text(v)
    yield "key twice", lambda raw: raw.rstrip()[:-1] + b', "name": 1, "name": 2}'


def _whole() -> Iterator[Change]:
    """What may happen to any file of bytes."""
    for share in (0.1, 0.5, 0.9, 0.99):
        yield f"cut at {share:.0%}", lambda raw, s=share: raw[: int(len(raw) * s)]
    for at in range(12):
        yield f"bit flip {at}", lambda raw, a=at: _flipped(raw, (2 * a + 1) / 24)
    yield "empty", lambda _: b""
    yield "byte order mark", lambda raw: b"\xef\xbb\xbf" + raw
    yield "UTF-16", lambda raw: raw.decode("latin-1").encode("utf-16")
    yield "not UTF-8", lambda raw: raw + b"\xff\xe9"
    yield "NUL bytes", lambda raw: raw + bytes(100)
    yield "zeros", lambda raw: bytes(len(raw))
    yield "twice", lambda raw: raw + raw
    yield "backwards", lambda raw: raw[::-1]
    yield "escape sequences", lambda raw: b"\x1b[2J" + raw
    yield "a page of HTML", lambda _: b"<!DOCTYPE html><html>404</html>\n" * 10
    yield "bytes 0 to 255", lambda _: bytes(range(256)) * 40
    yield "deep", lambda _: b"[" * 100_000
    yield "deep mappings", lambda _: b'{"a":' * 40_000


def _flipped(raw: bytes, share: float) -> bytes:
    at = int(len(raw) * share)
    return raw[:at] + bytes([raw[at] ^ (1 << (at % 8))]) + raw[at + 1 :] if raw else raw


def table(raw: bytes) -> Iterator[Change]:
    """Every column of a CSV removed, doubled, renamed, and its first value replaced."""
    rows = pd.read_csv(io.BytesIO(raw), dtype=str, keep_default_na=False)
    yield from _whole()
    lines = raw.decode().splitlines(keepends=True)
    yield "header only", lambda _: lines[0].encode()
    yield "no header", lambda _: "".join(lines[1:]).encode()
    yield "a row short", lambda _: "".join([*lines[:1], lines[1].partition(",")[2], *lines[2:]]).encode()
    yield "a row long", lambda _: "".join([*lines[:1], "x," + lines[1], *lines[2:]]).encode()
    yield "a row twice", lambda _: "".join([*lines, lines[-1]]).encode()
    yield "an open quote", lambda _: (lines[0] + '"' + "".join(lines[1:])).encode()
    for name in rows.columns:
        yield f"{name} removed", lambda _, n=name: _csv(rows.drop(columns=n))
        yield f"{name} twice", lambda _, n=name: _csv(pd.concat([rows, rows[n]], axis=1))
        yield f"{name} renamed", lambda _, n=name: _csv(rows.rename(columns={n: "zzz\n\x1b"}))
        for what in ("", "x", "-1", "1e999", "9" * 5000, "nan", "a\x00b", "a\nb\x1b[2J", "../../../etc/x", "y" * 9999):
            yield f"{name} = {what[:12]!r}", lambda _, n=name, w=what: _csv(_replaced(rows, n, w))


def _replaced(rows: pd.DataFrame, name: str, value: Any) -> pd.DataFrame:
    values = rows[name].astype(object)
    values.iloc[0] = value
    return rows.assign(**{name: values})


def _csv(rows: pd.DataFrame) -> bytes:
    return rows.to_csv(index=False, lineterminator="\n").encode("utf-8", "surrogatepass")


_TYPES = {
    "text": lambda n: pa.array(["x"] * n),
    "bytes": lambda n: pa.array([b"\xff\x00"] * n),
    "whole numbers": lambda n: pa.array([7] * n),
    "numbers": lambda n: pa.array([0.5] * n),
    "flags": lambda n: pa.array([True] * n),
    "times": lambda n: pa.array(pd.to_datetime(["2020-01-01"] * n)),
    "lists": lambda n: pa.array([[1]] * n),
    "mappings": lambda n: pa.array([{"a": 1}] * n),
    "nothing": pa.nulls,
    "gaps of text": lambda n: pa.array([None, *["x"] * (n - 1)]),
    "gaps of numbers": lambda n: pa.array([None, *[1] * (n - 1)], pa.int64()),
    "infinities": lambda n: pa.array([float("inf")] * n),
    "large unsigned": lambda n: pa.array([2**64 - 1] * n, pa.uint64()),
}


def parquet(raw: bytes) -> Iterator[Change]:
    """Every column of a Parquet file removed, doubled, and of every other type."""
    whole = pq.read_table(io.BytesIO(raw))
    yield from _whole()
    for at in range(60):
        yield f"bit flip in part {at}", lambda data, a=at: _flipped(data, (2 * a + 1) / 120)
    yield "no rows", lambda _: _parquet(whole.slice(0, 0))
    yield "a row twice", lambda _: _parquet(pa.concat_tables([whole, whole.slice(0, 1)]))
    yield "no columns", lambda _: _parquet(whole.select([]))
    for at, name in enumerate(whole.column_names):
        yield f"{name} removed", lambda _, n=name: _parquet(whole.drop_columns(n))
        yield f"{name} twice", lambda _, n=name: _parquet(whole.append_column(n, whole.column(n)))
        for kind, values in _TYPES.items():
            yield (
                f"{name} of {kind}",
                lambda _, a=at, n=name, v=values: _parquet(whole.set_column(a, n, v(whole.num_rows))),
            )


def _parquet(rows: pa.Table) -> bytes:
    stream = io.BytesIO()
    pq.write_table(rows, stream)
    return stream.getvalue()


def bytes_only(raw: bytes) -> Iterator[Change]:
    """Damage to a file that has no structure to change here."""
    yield from _whole()
    for at in range(100):
        yield f"bit flip in part {at}", lambda data, a=at: _flipped(data, (2 * a + 1) / 200)


# -- the kinds of file ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of file: where a good one lies, what reads it, and how it may be malformed."""

    name: str
    path: Path
    read: Callable[[Path], Any]
    changes: Callable[[bytes], Iterator[Change]]


def kinds(folder: Path) -> list[Kind]:
    """Writes a good file of every kind into a folder."""
    run = Simulation(n=12).write(folder / "run")
    loaded = load_runs([run])[0]
    for name, data in {"suite": _SUITE, "space": _SPACE, "limits": _LIMITS}.items():
        (folder / f"{name}.yaml").write_bytes(_text(data))
    write_baseline(baseline_of(loaded), folder / "baseline.json")
    write_front(Front.model_validate(_FRONT), folder / "front.json")
    run.write_part(record_of(StoredPart.model_validate(_PART)))
    curve = LearningCurve(20)
    curve.add(10, 1.0, 12.0)
    curve.add(20, 0.5, 13.0)
    curve.compare(curve.points[0])
    run.write_curve(KEY, curve)
    pictures = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    run.write_images("originals", pictures)
    for suffix in ("png", "jpg"):
        Image.fromarray(pictures[0]).resize((40, 40)).save(folder / f"photo.{suffix}")
    counts = {column.name: {"text": "a", "int": 3, "float": 0.5}[column.kind] for column in KIND_COLUMNS}
    (run.path / "quality_by_kind.csv").write_bytes(_csv(pd.DataFrame([counts])))
    (folder / "search").mkdir()
    _write_trials(folder / "search")

    return [
        Kind("suite", folder / "suite.yaml", lambda p: load_suite(str(p)), structured),
        Kind("space", folder / "space.yaml", lambda p: load_space(str(p)), structured),
        Kind("limits", folder / "limits.yaml", read_limits, structured),
        Kind("run.json", run.path / "run.json", lambda p: _shown(p.parent), structured),
        Kind("part", run.path / "parts" / f"{KEY}.json", lambda _: run.read_part(KEY), structured),
        Kind("curve", run.path / "attacks" / f"{KEY}.json", lambda _: run.read_curve(KEY), structured),
        Kind("baseline", folder / "baseline.json", lambda p: _against(loaded, p), structured),
        Kind("front", folder / "front.json", _chosen, structured),
        Kind("cells.csv", run.path / "cells.csv", lambda p: _reported(p.parent), table),
        Kind("quality_by_kind.csv", run.path / "quality_by_kind.csv", lambda _: run.kinds(), table),
        Kind("images.parquet", run.path / "images.parquet", lambda p: _reported(p.parent), parquet),
        Kind("sheet", run.path / "reconstructions" / "originals.png", lambda _: _sheet(run), bytes_only),
        Kind("photograph", folder / "photo.png", _photograph, bytes_only),
        Kind("photograph (JPEG)", folder / "photo.jpg", _photograph, bytes_only),
        Kind("trials.db", folder / "search" / "trials.db", lambda p: _trials(p.parent), bytes_only),
    ]


def _sheet(run: RunFolder) -> Any:
    return run.read_images("originals", 12, 8, 8)


def _photograph(path: Path) -> Any:
    return read_photograph(path, lambda data: decode(data, 16))


def _shown(folder: Path) -> None:
    """Reads a run and shows all of run.json that a report shows."""
    run = load_runs([RunFolder.open(folder)])[0]
    for grid in (provenance, attacks_grid, threat_models_grid):
        grid(run)
    identity_of(run)


def _reported(folder: Path) -> None:
    """Reads a run and computes what a report says of it."""
    run = load_runs([RunFolder(folder)])[0]
    summarise(run, point_rows(run))
    cells_grid(run)


def _against(run: LoadedRun, path: Path) -> None:
    baseline = read_baseline(path)
    for point in baseline.points:
        for name in point.measures:
            baseline.values(point, name)


def _chosen(path: Path) -> None:
    front = read_front(path)
    front.operating_point(choose(front, Chosen(snr_db=10.0, most={"payload_bytes": 1e9})).name)


def _write_trials(folder: Path) -> None:
    storage = open_storage(sqlite_url(folder))
    study = open_study(storage, "s", [StudyDirection.MAXIMIZE])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trial = study.ask({"x": FloatDistribution(0, 1)})
    kept = {"options": {}, "channel": {"name": "ideal"}, "shares": [0.5], "metrics": {"quality": 0.5}, "violations": {}}
    for name, value in kept.items():
        trial.set_user_attr(name, value)
    study.tell(trial, 0.5)
    storage.engine.dispose()


def _trials(folder: Path) -> None:
    storage = open_storage(sqlite_url(folder))
    try:
        finished(open_study(storage, "s", [StudyDirection.MAXIMIZE]))
    finally:
        storage.engine.dispose()


_SUITE = {
    "name": "s",
    "description": "d",
    "task": {"name": "photos"},
    "defense": {"name": "split_pipeline", "cut": 2},
    "operating_points": [{"name": "plain", "reduction": {"name": "threshold", "threshold": 0.9}}],
    "baseline": "plain",
    "channels": [{"label": "noisy", "plugin": {"name": "awgn", "snr_db": 10}}],
    "threat_models": [{"name": "server", "knows": {"merge_map": True}, "auxiliary": {"n": 9}}],
    "attacks": [{"label": "ridge", "plugin": {"name": "ridge"}}],
    "metrics": ["psnr_db"],
    "cells": [{"attacks": ["ridge"]}],
    "seeds": [0],
    "evaluation_images": 9,
    "bandwidth_hz": 1e6,
}
_SPACE = {
    "name": "s",
    "task": "photos",
    "share": {"low": 0.1, "high": 0.9},
    "choices": {"cut": [2], "channel": [{"name": "awgn", "snr_db": 10}]},
    "calibration": {"images": 8, "pick": "first"},
    "objectives": ["quality", "leakage"],
    "constraints": [{"metric": "quality", "drop_at_most": 0.1}],
    "reference": {"quality": 0.1},
    "proxy": {"attack": "ridge", "floors": ["floor_mean"]},
    "sampler": "random",
    "trials": 4,
    "baselines": [{"name": "tome"}],
    "remeasure": {"attacks": ["ridge"]},
}
_LIMITS = {
    "minimum_images": 30,
    "inconclusive": "judge",
    "worse_by": {"leakage": 0.5, "payload_bytes": "2 %", "ssim": None},
    "points": {"merged": {"leakage": 1}},
    "absolute": [{"measure": "leakage", "operating_point": "m*", "at_most": 9}],
}
_PART = {
    "identity": {
        **dict.fromkeys(("task", "defense", "operating_point", "channel", "attack", "threat_model"), "x"),
        "cell": KEY,
        "snr_db": None,
        "seed": 0,
    },
    "status": "done",
    "costs": {"quality": [1.0, 0.0]},
    "latency_ms": 1.0,
    "scores": {"psnr_db": [20.0, float("nan")]},
    "floor": False,
    "kinds": {"count": {"right": [1.0, 1.0], "base": [1.0, 1.0], "questions": [1.0, 1.0]}},
    "kind": "attribute",
    "unscored": {"lpips": "no weights"},
    "attack_seconds": 1.0,
    "attribute": "mood",
    "cell_scores": {"attribute_auc": 0.5},
    "chance": {"attribute_accuracy": 0.5},
    "unconverged": None,
}
_FRONT = {
    "space": "s",
    "task": {"name": "photos"},
    "defense": {"name": "split_pipeline"},
    "quality_name": "accuracy",
    "objectives": ["quality", "payload_bytes"],
    "reference": {"quality": 0.5},
    "quality_base": 0.9,
    "undefended": {"quality": 0.9},
    "operating_points": [{"name": "a", "cut": 2}],
    "points": [
        {
            "name": "a",
            "trial": 3,
            "channel": {"name": "awgn", "snr_db": 5},
            "shares": [0.5],
            "metrics": {"quality": 0.8, "payload_bytes": 900.0},
        }
    ],
    "baseline_points": [{"name": "tome"}],
    "baselines": [{"name": "tome", "channel": {"name": "ideal"}, "metrics": {"quality": 0.8}}],
}


# -- trying them ------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What became of the files of a kind; ``failures`` names each and says how it failed."""

    tried: int = 0
    read: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)


def _links(path: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "missing", lambda: None
    yield "a folder", path.mkdir
    yield "a loop of links", lambda: path.symlink_to(path)
    yield "a link to nothing", lambda: path.symlink_to(path.parent / "nothing here")
    yield "a pipe", lambda: os.mkfifo(path)
    yield "a device", lambda: path.symlink_to("/dev/zero")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def attempt(kind: Kind, name: str, tally: Tally) -> None:
    """Reads what lies there now, and judges how that ended."""
    tally.tried += 1
    start = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.read(kind.path)
        tally.read += 1
    except LeakgaugeError as error:
        line = str(error)
        tally.refused += 1
        if error.exit_code != 2 or len(line) > LONGEST_LINE or not line.isprintable():
            tally.failures.append(
                f"{kind.name}, {name}: exit {error.exit_code}, {len(line)} characters: {line[:150]!r}"
            )
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        tally.failures.append(f"{kind.name}, {name}: {type(error).__name__} at {where}: {str(error)[:100]!r}")
    if time.monotonic() - start > SLOW_S:
        tally.failures.append(f"{kind.name}, {name}: more than {SLOW_S} s")


def try_kind(kind: Kind, most: int) -> Tally:
    """Tries up to ``most`` malformed files of a kind, evenly spread, and what is no file; puts the good one back."""
    tally, good = Tally(), kind.path.read_bytes()
    attempt(kind, "as it was", tally)
    if tally.read != 1:
        tally.failures.append(f"{kind.name}: the good file is refused")
    changes = list(kind.changes(good))
    chosen = sorted({int(i * len(changes) / most) for i in range(most)}) if len(changes) > most else range(len(changes))
    for at in chosen:
        name, change = changes[at]
        kind.path.write_bytes(change(good))
        attempt(kind, name, tally)
    for name, act in _links(kind.path):
        _remove(kind.path)
        act()
        attempt(kind, name, tally)
    _remove(kind.path)
    kind.path.write_bytes(good)
    return tally


def campaign(folder: Path, most: int = 600) -> dict[str, Tally]:
    """Tries up to ``most`` malformed files of every kind; returns what became of them, by kind."""
    return {kind.name: try_kind(kind, most) for kind in kinds(folder)}


def main() -> int:
    """Prints the table; returns how many files ended otherwise than read or refused in one line."""
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(Path(folder))
    print(f"{'kind':22}{'tried':>8}{'read':>8}{'refused':>9}{'failed':>8}")
    for name, tally in found.items():
        print(f"{name:22}{tally.tried:8}{tally.read:8}{tally.refused:9}{len(tally.failures):8}")
    failures = [failure for tally in found.values() for failure in tally.failures]
    print(f"{'all':22}{sum(tally.tried for tally in found.values()):8}{'':17}{len(failures):8}")
    for failure in failures:
        print(plain(failure, keep=""))
    return len(failures)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
