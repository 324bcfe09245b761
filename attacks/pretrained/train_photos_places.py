"""Trains the network that finds places of merged tokens on ``photos``, over many operating points, and records how.

Run ``python -m leakgauge.attacks.pretrained.train_photos_places --minutes 17``. It writes ``photos_places.safetensors``
and ``photos_places.training.json`` beside this file, or to ``--out``. It learns from the attacker's split alone, and
not from the clusters that ``cascade_pretrained`` fits its maps on; the curve is on these. Every epoch goes through
another operating point.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from leakgauge.attacks.networks.set_network import SeekingNetwork
from leakgauge.attacks.set_decoder import pixel_loss
from leakgauge.attacks.training.loop import Batch, Schedule, learn, mean_psnr_db, predict
from leakgauge.attacks.training.pretrained_places import NAME, PLACES_SIZE, for_maps
from leakgauge.attacks.training.trainee import Trainee
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.measurement.attacker_view import trace
from leakgauge.harness.measurement.transmitting import transmit_all
from leakgauge.harness.suite.planning import build_defense
from leakgauge.harness.suite.registry import create
from leakgauge.harness.suite.schema import PluginConfig, ThreatModel
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

CUT = 3
BATCH = 32
PEAK_LR = 4e-3
POSITION_WEIGHT = 1.0
CURVE_IMAGES = 256
MATCHED: dict[str, Any] = {"match": {"name": "threshold", "thresholds": 0.9}}
POINTS: dict[str, dict[str, Any]] = {
    **{f"threshold_{at:.2f}": {"name": "threshold", "thresholds": at} for at in (0.95, 0.9, 0.85, 0.8)},
    "random_merge_0.90": {"name": "random_merge", **MATCHED},
    "tome_r13": {"name": "tome", "r": 13},
}


def watched(victim: Victim, images: ImageSet, point: str, streams: Streams) -> Observation:
    """Returns what whoever holds the weights watches of its own images: tokens, sizes, order and merge map."""
    options = {"cut": CUT, "codec": "float16", "reduction": POINTS[point]}
    defense = build_defense(PluginConfig(name="split_pipeline", **options), point, victim, torch.device("cpu"))
    sent = defense.send(transmit_all(defense, images, streams, 64), streams)
    return trace(sent, ThreatModel(victim="white-box"), defense.grid)


def statistics(seen: dict[str, Observation]) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation (D,) of the tokens of all points."""
    tokens = torch.cat([one.tokens for one in seen.values()])
    return tokens.mean(dim=0), tokens.std(dim=0).clamp_min(1e-6)


def train(minutes: float, out: Path) -> None:
    """Trains for about so many minutes, what is sent included, and writes weights and record."""
    start, streams = time.monotonic(), Streams(0, ("photos places",))
    task = create("tasks", "photos", {})
    victim, images = task.victim(), task.split("attacker")
    kept = for_maps(images)
    rows, held = (~kept).nonzero().squeeze(1), kept.nonzero().squeeze(1)
    held = held[:: max(1, len(held) // CURVE_IMAGES)]
    seen = {name: watched(victim, images, name, streams.child("sent", name)) for name in POINTS}
    torch.manual_seed(streams.child("init").entropy())
    mean, std = statistics(seen)
    network = SeekingNetwork(mean, std, (3, 64, 64), (8, 8), **PLACES_SIZE)
    observed, each = list(seen.values()), len(POINTS)

    def loss_on(batch: Batch, learner: nn.Module) -> Tensor:
        assert isinstance(learner, SeekingNetwork)
        painted, miss = learner.supervised(batch.observed)
        return pixel_loss(painted, images.pixels[batch.rows].float() / 255.0) + POSITION_WEIGHT * miss

    def trained(steps: int, begun: float) -> None:
        schedule = Schedule(steps, BATCH, PEAK_LR, 100, muon=2.0)
        main = Trainee(network, schedule.weight_decay, schedule.muon)
        for batch, lost, _ in learn(main, [], lambda draw: observed[draw % each], rows, schedule, streams, loss_on):
            if (batch.step + 1) % 500 == 0:
                curve.append({"step": batch.step + 1, "loss": round(lost, 4), **measured()})
                print(f"{time.monotonic() - begun:.0f} s", curve[-1], flush=True)

    def measured() -> dict[str, float]:
        truth = images.select(held).images()
        told = {name: predict(network, one.select(held), torch.device("cpu")) for name, one in seen.items()}
        network.train()
        return {name: round(mean_psnr_db(rebuilt, truth), 3) for name, rebuilt in told.items()}

    curve: list[dict[str, float]] = []
    steps = _affordable(network, observed[0], rows, loss_on, minutes * 60 - (time.monotonic() - start))
    trained(steps, start)
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.to(torch.float16).contiguous() for name, value in network.state_dict().items()},
        out / f"{NAME}.safetensors",
    )
    record = {
        "minutes": minutes,
        "seed": 0,
        "steps": steps,
        "batch": BATCH,
        "victim": victim.weights_hash,
        "cut": CUT,
        "points": list(POINTS),
        "images": len(rows),
        "images_left_for_maps": int(kept.sum()),
        "parameters": sum(one.numel() for one in network.parameters()),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "curve": curve,
    }
    (out / f"{NAME}.training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _affordable(network: nn.Module, seen: Observation, rows: Tensor, loss_on: Any, seconds: float) -> int:
    """Returns how many steps fit into so many seconds, by the time that a few take."""
    begun = time.monotonic()
    for start in range(0, 10 * BATCH, BATCH):
        chosen = rows[start : start + BATCH]
        loss_on(Batch(0, 0, chosen, seen.select(chosen)), network).backward()
    network.zero_grad()
    return max(600, int(0.75 * seconds / ((time.monotonic() - begun) / 10)))


def main() -> None:
    """Runs the training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    asked = parser.parse_args()
    train(asked.minutes, asked.out)


if __name__ == "__main__":
    main()
