"""TensorBoard: event files, a folder for each operating point, and the report beside them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.system.files.output_paths import check_folder_free
from leakgauge.reports.export.record import PointRecord, RunRecord
from leakgauge.reports.export.tracker import Target, library, names_for, refusals

_IN_PATHS = r"\w\-."


def export_tensorboard(record: RunRecord, target: Target) -> str:
    """Writes event files below ``--out``, or below ``tensorboard``; what an earlier export of the run left goes.

    Raises:
        ConfigError: TensorBoard is not installed, or an address was named: it has no server to send to.
        PluginError: It refused something.
    """
    library("tensorboard", "tensorboard")
    writer_of = library("torch.utils.tensorboard", "tensorboard").SummaryWriter
    if target.uri is not None:
        raise ConfigError("TensorBoard reads a folder", where="--uri", hint="name it with --out")
    [name] = names_for([record.name], _IN_PATHS).values()
    root = target.out or Path("tensorboard")
    # Events of an earlier export would be drawn over those of this one.
    folder = root / ("_" if name in {".", ".."} else name)
    check_folder_free(folder)
    if folder.exists():
        for path in folder.rglob("events.out.tfevents.*"):
            path.unlink()
    names = names_for([point.name for point in record.points], _IN_PATHS)
    with refusals("tensorboard"):
        with writer_of(str(folder)) as writer:
            writer.add_text("parameters", _table(record.parameters))
        for point in record.points:
            with writer_of(str(folder / "points" / names[point.name])) as writer:
                _point(writer, point)
        for path in record.files:
            (folder / "report").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / "report" / path.name)
    return f"tensorboard: {folder}; tensorboard --logdir {root}"


def _point(writer: Any, point: PointRecord) -> None:
    writer.add_text("parameters", _table(point.parameters))
    for name, value in point.metrics.items():
        writer.add_scalar(name, value, 0)
    for curve in point.curves:
        for step, value in curve.values:
            writer.add_scalar(curve.name, value, step)
    if point.picture is not None:
        writer.add_image("originals above reconstructions", point.picture, 0, dataformats="HWC")


def _table(parameters: dict[str, str]) -> str:
    """Writes parameters as a Markdown table, which TensorBoard shows as text: whatever would steer it is escaped."""
    rows = (f"| {_cell(name)} | {_cell(value)} |" for name, value in parameters.items())
    return "\n".join(["| parameter | value |", "| --- | --- |", *rows])


def _cell(text: str) -> str:
    special = r"\`*_{}[]()#+-.!|<>"
    return "".join(f"\\{c}" if c in special else c for c in text)
