"""Command line of the speed benchmark: ``python -m leakgauge.benchmarks.studies.speed --out DIR``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import timm
import torch
import typer
from rich.console import Console

from leakgauge.benchmarks.studies.command_line import start
from leakgauge.benchmarks.studies.speed.cases import SHARES, CaseRow, Setup, measure, victim_of
from leakgauge.benchmarks.studies.speed.photographs import photographs
from leakgauge.benchmarks.studies.speed.presentation import conditions, table, write
from leakgauge.benchmarks.victims.loading.timm_model import load_timm_model
from leakgauge.harness.system.machine import choose_device

IMAGE_PX = 224
MODELS = ("vit_small_patch14_dinov2", "vit_base_patch14_dinov2")
CALIBRATION_IMAGES = 32
_err = Console(stderr=True, width=140)
# The profiler writes its own life to stderr.
os.environ.setdefault("KINETO_LOG_LEVEL", "5")


def main(
    out: Annotated[Path, typer.Option(help="Where speed.json, speed.md and speed.png go.")] = Path("runs/speed"),
    model: Annotated[list[str] | None, typer.Option(help="timm ViT with a class token; repeatable.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=2, help="Images a batch; repeatable.")] = None,
    repetitions: Annotated[int, typer.Option(min=1)] = 7,
    share: Annotated[list[float] | None, typer.Option(help="Share of the matches that merge; repeatable.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights of the first model; else random ones.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of photographs; else scikit-image's.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's.")] = None,
    cpu_time: Annotated[bool, typer.Option(help="Count CPU time, for machines that others use too.")] = False,
) -> None:
    """Times merging against the unmodified timm model and a plain padded implementation, in the same run."""
    if threads is not None:
        torch.set_num_threads(threads)
    chosen = choose_device(device)
    rows: list[CaseRow] = []
    about = conditions(chosen, repetitions, cpu_time=cpu_time)
    for position, name in enumerate(model or MODELS):
        torch.manual_seed(0)
        weights = checkpoint if position == 0 else None
        if weights is not None:
            network = load_timm_model(name, weights, image_px=IMAGE_PX).model
        else:
            # LayerScale starts at 1e-5 in some models: without it tokens would not change from block to block.
            options = {"init_values": 1.0} if "dinov2" in name else {}
            network = timm.create_model(name, pretrained=False, img_size=IMAGE_PX, **options)
        setup = Setup(victim_of(network, name, chosen), name, chosen, repetitions, cpu_time, tuple(share or SHARES))
        for count in batch or [32, 64]:
            pool = photographs(count + CALIBRATION_IMAGES, IMAGE_PX, images)
            calibration = pool.select(range(count, len(pool)))
            rows += measure(setup, pool.select(range(count)), calibration, lambda line: _err.print(line, markup=False))
            write(rows, about, out)
    print(table(rows))
    print(f"written to {out}")


if __name__ == "__main__":
    start(main)
