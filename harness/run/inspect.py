"""Looks at one image through the edge of a suite's operating points: no attack runs and nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import UnidentifiedImageError
from rich.table import Table
from torch import Tensor

from leakgauge.harness.contracts.defense import inspectable
from leakgauge.harness.contracts.task import Task
from leakgauge.harness.errors import ConfigError, DataError, LeakgaugeError, PluginError, suggest
from leakgauge.harness.measurement.operating_point import prepare
from leakgauge.harness.run.executors import one_thread
from leakgauge.harness.suite.planning import build_defense, defense_config
from leakgauge.harness.suite.registry import create, load, plugins
from leakgauge.harness.suite.schema import OperatingPoint, Suite
from leakgauge.harness.system.files.atomic_file import write_atomic
from leakgauge.harness.values.decoding import MAX_FILE_BYTES
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.layer_view import Inspection
from leakgauge.harness.values.seeding import Streams


def read_photograph(path: Path, read: Callable[[bytes], Tensor]) -> Tensor:
    """Reads an image file as a task reads its own.

    Args:
        path: The file.
        read: Makes pixels of its bytes (``Task.read_image``).

    Returns:
        What ``read`` returns.

    Raises:
        DataError: The file is missing, unreadable, too large, no image, or damaged.
    """
    where = str(path)
    if not path.is_file():
        what = "is not a file" if path.exists() else "no such file"
        raise DataError(what, where=where, hint="give the path of one image file")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror}", where=where, hint="check its permissions") from error
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB", where=where, hint="make it smaller")
    try:
        return read(data)
    except LeakgaugeError:  # not of the file, but of the task that reads it
        raise
    except UnidentifiedImageError as error:
        raise DataError("not an image", where=where, hint="give a JPEG, PNG, BMP, GIF, WebP, TIFF or PPM") from error
    except Exception as error:  # PIL raises many kinds for damaged files
        text = str(error) or type(error).__name__
        raise DataError(f"cannot be decoded: {text}", where=where, hint="give an undamaged image") from error


def chosen_points(suite: Suite, name: str | None) -> list[OperatingPoint]:
    """Returns the operating point of that name; without a name all but the baseline, or it where it is alone.

    Raises:
        ConfigError: The suite has no such operating point.
    """
    points = {point.name: point for point in suite.operating_points}
    if name is not None:
        if name not in points:
            raise ConfigError(f"unknown defense {name!r}", where=suite.name, hint=suggest(name, list(points)))
        return [points[name]]
    return [point for point in points.values() if point.name != suite.baseline_point] or list(points.values())


def inspect_photograph(
    path: Path, suite: Suite, name: str | None, out: Path, device: torch.device
) -> Iterator[tuple[Inspection, list[Path]]]:
    """Draws what merges, for one operating point after the other.

    Merging is random, if at all, as in a run of the suite's first seed.

    Args:
        path: The image file; it is read as the task reads its own.
        suite: Where the victim and the operating points come from; its splits are not loaded unless the task must.
        name: An operating point, or None for all but the baseline.
        out: Folder of the figures, ``FIGURE_POINT.png``.
        device: Where to compute.

    Yields:
        What was seen, and the figures written.

    Raises:
        LeakgaugeError: The file, the suite or the defense cannot be used.
    """
    points = chosen_points(suite, name)
    figures = {figure: load("figures", figure) for figure in sorted(plugins("figures"))}
    if not figures:
        raise PluginError("no figure is registered", where="leakgauge.figures", hint="install the project again")
    # On one thread, as in a run, so that the same tokens merge.
    with one_thread():
        task: Task = create("tasks", suite.task.name, suite.task.options, where="task")
        image = ImageSet.from_pixels(read_photograph(path, task.read_image)[None])
        victim = task.victim()
        for point in points:
            defense = build_defense(defense_config(suite, point, suite.channels[0]), point.name, victim, device)
            streams = Streams(suite.seeds[0], ("evaluation",))
            prepare(task, defense, streams)
            layers = inspectable(defense).inspect(image, streams.child("encode"))
            seen = Inspection(point.name, image.pixels[0], defense.grid, layers, defense.resolved())
            written = []
            for figure, draw in figures.items():
                written.append(out / f"{figure}_{point.name}.png")
                write_atomic(written[-1], draw(seen))
            yield seen, written


def layer_table(seen: Inspection) -> Table:
    """Returns the counts of an inspection as a table, a row a block."""
    table = Table(title=seen.name, title_justify="left", header_style="bold")
    for name in ("block", "tokens", "of unreduced", "largest token (patches)", "GFLOP so far", "bytes if cut here"):
        table.add_column(name, justify="right", no_wrap=True)
    for view in seen.layers:
        share = f"{100 * view.tokens / view.unreduced:.1f} %"
        row = (view.layer + 1, view.tokens, share, view.largest, f"{view.gflops:.4f}", view.payload_bytes)
        table.add_row(*map(str, row))
    return table


def facts_of_inspection(seen: Inspection, figures: list[Path]) -> dict[str, Any]:
    """Returns what ``--json`` tells of an inspection: its blocks as in the table, and the figures written."""
    blocks = [
        {
            "block": view.layer + 1,
            "tokens": view.tokens,
            "unreduced": view.unreduced,
            "largest_token_patches": view.largest,
            "gflops": view.gflops,
            "payload_bytes": view.payload_bytes,
        }
        for view in seen.layers
    ]
    return {"operating_point": seen.name, "blocks": blocks, "resolved": dict(seen.resolved), "figures": figures}


def resolved_text(resolved: Mapping[str, Any]) -> str:
    """Returns what calibration found in one line, ``calibrated: thresholds 0.91 0.93, ...``; empty where nothing."""
    said = []
    for name, value in resolved.items():
        values = value if isinstance(value, list | tuple) else [value]
        said.append(" ".join([name, *(f"{one:.6g}" if isinstance(one, float) else str(one) for one in values)]))
    return f"calibrated: {', '.join(said)}" if said else ""
