"""A task of tiny images and a tiny random victim, and how to put plug-ins of a test before the registry."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path

import timm
import torch

from leakgauge.harness.contracts.task import Task
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.suite import registry
from leakgauge.harness.values.images import SPLITS, ImageSet

PX, EACH = 16, 24
SMALL_SUITE = {
    "name": "small",
    "task": "toy",
    "defense": {"name": "split_pipeline", "cut": 1},
    "operating_points": [{"name": "undefended"}],
    "attacks": ["floor_mean", "ridge"],
    "metrics": ["psnr_db"],
    "judge": "victim",
    "evaluation_images": 4,
}
"""Two cells that take no time."""
COUNTS = {"attacker": 2 * EACH, "calibration": 8, "search": 4, "evaluation": EACH}


@cache
def model(classes: int):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = {"img_size": PX, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
        return timm.create_model("vit_tiny_patch16_224", **shape, num_classes=classes).eval()


@cache
def pixels() -> torch.Tensor:
    """All images in one tensor, of which the splits are mere views: the worst that a task may do."""
    count = sum(COUNTS.values())
    noise = torch.rand(count, 3, PX, PX, generator=torch.Generator().manual_seed(1)) * 100
    bright = torch.arange(count) % 2
    return (noise + 140 * bright[:, None, None, None]).to(torch.uint8)


class Toy(Task):
    """Random images in four classes; every other image is bright."""

    name = "toy"
    version = 1
    quality_name = "top-1 accuracy"

    def __init__(self, classes: int = 4) -> None:
        self.classes = classes
        labels = torch.arange(len(pixels())) // 2 % 4
        groups = torch.arange(len(pixels())) // 2
        self.splits, start = {}, 0
        for name in SPLITS:
            rows = slice(start, start + COUNTS[name])
            found = ImageSet.from_pixels(pixels()[rows])
            self.splits[name] = ImageSet(found.pixels, found.ids, labels[rows], groups[rows])
            start = rows.stop

    def victim(self) -> Victim:
        return Victim(model(self.classes), (0.5,) * 3, (0.5,) * 3, "none", "tiny")

    def split(self, name):
        return self.splits[name]

    def target(self, images):
        if self.classes:
            return images.labels
        with torch.no_grad():
            return self.victim().predict(images.images())

    def quality(self, output, target):
        return (output.argmax(dim=1).cpu() == (target if self.classes else target.argmax(dim=1))).float()

    def attributes(self, images):
        return {"bright": (images.pixels.float().mean(dim=(1, 2, 3)) > 120).long()}


def install(folder: Path) -> str:
    """Registers the task in a folder as a third party does, for commands in processes of their own.

    Returns the ``PYTHONPATH`` of these processes.
    """
    home = folder / "toy_task-0.dist-info"
    home.mkdir(parents=True)
    (home / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-task\nVersion: 0\n")
    (home / "entry_points.txt").write_text("[leakgauge.tasks]\ntoy = toy_task:Toy\n")
    here = Path(__file__).resolve()
    places = [str(folder), str(here.parents[1]), str(here.parent), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(place for place in places if place)


def register(patch, **named: str) -> None:
    """Adds plug-ins for a test: ``attacks_deaf="module:Class"`` registers attack ``deaf``."""
    known = registry.plugins
    extra: dict[str, dict[str, EntryPoint]] = {}
    for key, value in named.items():
        group, _, name = key.partition("_")
        extra.setdefault(group, {})[name] = EntryPoint(name, value, f"leakgauge.{group}")
    patch.setattr(registry, "plugins", lambda group: {**known(group), **extra.get(group, {})})
