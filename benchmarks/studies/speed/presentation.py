"""The benchmark's table, JSON and plot."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch

from leakgauge.benchmarks.studies.speed.cases import CaseRow

mpl.use("Agg")
from matplotlib import pyplot as plt

HEADER = (
    "| model | batch | strategy | tokens at the end | GFLOP | fewer FLOPs | faster (range) | efficiency "
    "| matching + merging |"
)


def conditions(device: torch.device, repetitions: int, *, cpu_time: bool) -> dict[str, Any]:
    """Returns what the figures depend on."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "clock": "CPU time" if cpu_time else "wall clock",
        "repetitions": repetitions,
    }


def table(rows: list[CaseRow]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [HEADER, "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        mean, low, high = row.tokens
        spans = "" if row.match_share is None else f"{row.match_share + (row.merge_share or 0):.1%}"
        faster = f"{row.speedup.median:.2f}x ({row.speedup.low:.2f}-{row.speedup.high:.2f})"
        lines.append(
            f"| {row.model} | {row.batch} | {row.strategy} | {mean:.0f} ({low}-{high}) | {row.gflops:.2f} "
            f"| {row.flop_ratio:.2f}x | {faster} | {row.efficiency:.2f} | {spans} |"
        )
    return "\n".join(lines)


def write(rows: list[CaseRow], about: dict[str, Any], out: Path) -> None:
    """Writes speed.json, speed.md and speed.png into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    document = {"conditions": about, "rows": [asdict(row) for row in rows]}
    _replace(out / "speed.json", json.dumps(document, indent=1) + "\n")
    notes = ", ".join(f"{key} {value}" for key, value in about.items())
    _replace(out / "speed.md", f"{table(rows)}\n\n{notes}\n")
    _plot(rows, out / "speed.png")


def _replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _plot(rows: list[CaseRow], path: Path) -> None:
    """Draws speedup over FLOP reduction; the diagonal is the limit."""
    figure, axes = plt.subplots(figsize=(6.4, 5.2), dpi=150)
    highest = max([row.flop_ratio for row in rows] + [row.speedup.high for row in rows]) * 1.08
    axes.plot([0, highest], [0, highest], color="0.6", linewidth=1)
    axes.annotate(
        "every saved FLOP saves its time", (highest * 0.62, highest * 0.66), color="0.4", fontsize=8, rotation=40
    )
    markers = {"packed": "o", "padded, compacted": "s", "padded, masked": "x"}
    colours = dict(zip(dict.fromkeys((r.model, r.batch) for r in rows), plt.get_cmap("tab10").colors, strict=False))
    for row in rows:
        kind = "packed" if row.strategy.startswith("packed") else row.strategy
        error = [[row.speedup.median - row.speedup.low], [row.speedup.high - row.speedup.median]]
        colour = colours[(row.model, row.batch)]
        axes.errorbar(
            row.flop_ratio, row.speedup.median, error, color=colour, marker=markers[kind], markersize=5, linewidth=1
        )
    handles = [
        plt.Line2D([], [], color=c, marker="o", linestyle="", label=f"{m}, batch {b}") for (m, b), c in colours.items()
    ]
    handles += [plt.Line2D([], [], color="0.3", marker=m, linestyle="", label=k) for k, m in markers.items()]
    axes.legend(handles=handles, fontsize=7, frameon=False, loc="upper left")
    axes.set(xlabel="times fewer FLOPs", ylabel="times faster", xlim=(0, highest), ylim=(0, highest))
    figure.tight_layout()
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial)
    partial.replace(path)
    plt.close(figure)
