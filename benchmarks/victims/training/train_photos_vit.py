"""Trains the victim of task ``photos`` and records how.

Run ``python -m leakgauge.benchmarks.victims.training.train_photos_vit --minutes 20``. It writes
``photos_vit.safetensors`` and ``photos_vit.training.json`` (learning curve, evaluation accuracy, seeds) to the folder
of victims. Training sees crops of the attacker's tiles only; the evaluation split is measured once, at the end. The
curve is on the search split.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from leakgauge.benchmarks.tasks.photo_crops.crops import cut_crops
from leakgauge.benchmarks.tasks.photo_crops.photos import crop_set
from leakgauge.benchmarks.victims.photos_vit import MEAN, STD, WEIGHTS, build_photos_vit, load_photos_vit
from leakgauge.harness.store.number_type import autocast
from leakgauge.harness.values.images import SplitName
from leakgauge.harness.values.seeding import Streams

BATCH = 128
PEAK_LR = 1.2e-3
WARMUP_STEPS = 100
CROPS_PER_CLASS = 700


def prepare(pixels: Tensor) -> Tensor:
    """Normalises uint8 images (B, 3, H, W) for the network."""
    return (pixels.float() / 255.0 - MEAN[0]) / STD[0]


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Varies contrast by up to 25 % and brightness by about 0.25 of a normalised unit, image by image."""
    shape = (len(images), 1, 1, 1)
    gain = 0.75 + 0.5 * torch.rand(shape, generator=generator)
    return images * gain + 0.25 * torch.randn(shape, generator=generator)


@torch.no_grad()
def accuracy(model: nn.Module, split: SplitName) -> float:
    """Returns the top-1 accuracy on a split."""
    images = crop_set(split)
    model.eval()
    hits = [(model(prepare(b.pixels)).argmax(1) == b.labels).float() for b in images.batches(128)]
    model.train()
    return float(torch.cat(hits).mean())


def learning_rate(progress: float, step: int) -> float:
    """Warm-up, then half a cosine down to zero at ``progress`` 1."""
    return PEAK_LR * min(1.0, step / WARMUP_STEPS) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def train(minutes: float, seed: int) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Trains for a fixed time; returns the averaged network and the learning curve."""
    streams = Streams(seed, ("photos", "victim"))
    crops = cut_crops("attacker", CROPS_PER_CLASS, streams.child("crops"), augment=True)
    pixels = torch.from_numpy(np.stack([c.pixels for c in crops]))
    labels = torch.tensor([c.label for c in crops])
    torch.manual_seed(streams.child("init").entropy())
    # The fused attention's backward pass is several times slower than plain matrix products on a CPU.
    timm.layers.set_fused_attn(False)
    model = build_photos_vit(drop_path_rate=0.05).train()
    moving = torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)  # type: ignore[no-untyped-call]
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=moving)
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}])
    draws = streams.child("draws").torch()
    curve: list[dict[str, Any]] = []
    start, step = time.monotonic(), 0
    while (progress := (time.monotonic() - start) / (minutes * 60.0)) < 1.0:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(progress, step)
        rows = torch.randint(len(pixels), (BATCH,), generator=draws)
        with autocast(torch.device("cpu")):
            logits = model(jitter(prepare(pixels[rows]), draws))
        loss = cross_entropy(logits.float(), labels[rows], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(model)
        step += 1
        if step % 250 == 0:
            point = {"step": step, "loss": round(loss.item(), 4), "search_accuracy": accuracy(average.module, "search")}
            curve.append(point)
            print(f"{time.monotonic() - start:6.0f} s {point}", flush=True)
    network: nn.Module = average.module
    return network.eval(), curve


def main() -> None:
    """Trains, saves weights and log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1])
    arguments = parser.parse_args()
    model, curve = train(arguments.minutes, arguments.seed)
    path = arguments.out / WEIGHTS
    save_file({name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}, path)
    loaded = load_photos_vit(path)
    record = {
        "minutes": arguments.minutes,
        "seed": arguments.seed,
        "batch": BATCH,
        "steps": curve[-1]["step"] if curve else 0,
        "training_crops": CROPS_PER_CLASS * 56,
        "weights_hash": loaded.weights_hash,
        "search_accuracy": accuracy(loaded.model, "search"),
        "evaluation_accuracy": accuracy(loaded.model, "evaluation"),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "curve": curve,
    }
    path.with_suffix(".training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print({k: v for k, v in record.items() if k != "curve"})


if __name__ == "__main__":
    main()
