"""Measures one exposure: the defense's cost and quality once, then every attack against it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness import guards
from harness.contracts import Attack, Defense, Task, Victim
from harness.errors import LeakgaugeError
from harness.images import ImageSet
from harness.learning import convergence_failure
from harness.link import Transmission
from harness.observation import Observation
from harness.planning import Cell, Exposure, build_attack, build_defense, content_hash
from harness.registry import create
from harness.scoring.compute import measure_flops, measure_latency_ms
from harness.scoring.identification import reid_top1
from harness.scoring.metrics import score_images
from harness.seeding import Streams
from harness.store import RunFolder
from harness.suite import Suite
from harness.views import GrantedView, eavesdropping_channel, observe, respond_all, transmit_all

LATENCY_IMAGES = 19


@dataclass(frozen=True)
class Bench:
    """What all exposures of a run share: the task, its victim, the evaluation images and the gallery features."""

    suite: Suite
    task: Task
    victim: Victim
    evaluation: ImageSet
    quality_base: Tensor
    gallery: Tensor
    device: torch.device

    @classmethod
    def build(cls, suite: Suite, device: torch.device) -> Bench:
        """Loads the task and runs the unmodified victim on the evaluation images."""
        task: Task = create("tasks", suite.task.name, suite.task.options, where="task")
        victim, evaluation = task.victim(), task.split("evaluation")
        if suite.evaluation_images is not None:
            # Every k-th image: splits are in class order, so this keeps all classes.
            rows = np.linspace(0, len(evaluation) - 1, min(suite.evaluation_images, len(evaluation))).round()
            evaluation = evaluation.select(torch.from_numpy(np.unique(rows).astype(np.int64)))
        victim.model.to(device)
        outputs, features = [], []
        with torch.no_grad():
            for batch in evaluation.batches(suite.batch_size):
                pixels = batch.images().to(device)
                outputs.append(victim.predict(pixels).cpu())
                features.append(victim.embed(pixels).cpu())
        base = guards.quality(task, torch.cat(outputs), task.target(evaluation))
        return cls(suite, task, victim, evaluation, base, torch.cat(features), device)

    def features(self, images: Tensor) -> Tensor:
        """Returns victim features (B, D) of uint8 images."""
        with torch.no_grad():
            parts = [
                self.victim.embed(part.to(self.device).float() / 255.0).cpu()
                for part in torch.split(images, self.suite.batch_size)
            ]
        return torch.cat(parts)

    def auxiliary(self, n: int | None) -> ImageSet:
        """Returns the attacker's images: all, or every k-th so that ``n`` remain."""
        images = self.task.split("attacker")
        if n is None or n >= len(images):
            return images
        rows = np.linspace(0, len(images) - 1, n).round().astype(np.int64)
        return images.select(torch.from_numpy(np.unique(rows)))


@dataclass(frozen=True)
class Measured:
    """An exposure as measured: per-image costs, quality, and what the attacker observes of the evaluation images."""

    defense: Defense
    costs: dict[str, Tensor]
    latency_ms: float
    observation: Observation


def link_costs(transmission: Transmission, bandwidth_hz: float) -> dict[str, Tensor]:
    """Returns what sending each image cost, (B,) a column, by its name in ``harness.results``.

    Args:
        transmission: What the server received.
        bandwidth_hz: Complex symbols a second, assumed.
    """
    encoded, uses = transmission.encoded, transmission.channel_uses.double()
    lost = torch.zeros(len(uses), dtype=torch.long) if transmission.lost is None else transmission.lost
    efficiency = 8 * encoded.payload_bytes.double() / uses
    return {
        "tokens": encoded.decoded.lengths,
        "payload_bytes": encoded.payload_bytes,
        "side_bytes": encoded.side_bytes,
        "channel_uses": transmission.channel_uses,
        "air_time_ms": uses / bandwidth_hz * 1e3,
        "spectral_efficiency_bits": torch.where(uses > 0, efficiency, torch.nan),
        "lost_tokens": lost,
    }


def measure_exposure(bench: Bench, exposure: Exposure) -> Measured:
    """Transmits the evaluation images once and measures quality, compute and bandwidth.

    All of these are the server's; only the observation is an eavesdropper's, where the threat model has one.
    """
    defense = build_defense(exposure.defense, exposure.point.name, bench.victim, bench.device)
    streams = Streams(exposure.seed, ("evaluation",))
    defense.prepare(bench.task.split("calibration"), streams.child("prepare"))
    images = bench.evaluation
    encoded = transmit_all(defense, images, streams, bench.suite.batch_size)
    transmission = defense.send(encoded, streams.child("channel"))
    output = respond_all(defense, transmission, bench.suite.batch_size)
    flops = measure_flops(defense, images, transmission, streams)
    costs = {
        "quality": guards.quality(bench.task, output, bench.task.target(images)),
        "quality_base": bench.quality_base,
        "gflops_edge": flops.edge,
        "gflops_total": flops.total,
        **link_costs(transmission, bench.suite.bandwidth_hz),
    }
    eavesdropping = eavesdropping_channel(exposure.threat_model, defense)
    overheard = transmission
    if eavesdropping is not None:
        overheard = defense.send(encoded, streams.child("eavesdropper"), eavesdropping)
    seen = observe(overheard, exposure.threat_model, defense.grid, output, streams.child("observer"))
    sample = images.select(range(0, len(images), max(1, len(images) // LATENCY_IMAGES)))
    return Measured(defense, costs, measure_latency_ms(defense, sample, streams, bench.device), seen)


def identity(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Returns the columns that name a cell."""
    exposure = cell.exposure
    return {
        "cell": cell.key,
        "task": f"{bench.task.name} v{bench.task.version}",
        "defense": exposure.defense.name,
        "operating_point": exposure.point.name,
        "channel": exposure.channel.label,
        "snr_db": exposure.channel.plugin.options.get("snr_db"),
        "attack": cell.attack.label,
        "threat_model": exposure.threat_model.name,
        "seed": exposure.seed,
    }


def run_attack(bench: Bench, cell: Cell, measured: Measured, view: GrantedView, store: RunFolder) -> dict[str, Any]:
    """Fits one attack, reconstructs the evaluation images, scores and stores them; returns the part to write."""
    attack: Attack = build_attack(cell.attack)
    # One stream for all operating points: attackers start alike, so that differences are the defense's.
    streams = Streams(cell.exposure.seed, ("attack", content_hash(cell.attack.plugin.model_dump())))
    start = time.monotonic()
    auxiliary = bench.auxiliary(cell.exposure.threat_model.auxiliary.n)
    curve = guards.fit(attack, view, auxiliary, streams.child("fit"))
    shape = view.image_shape
    rebuilt = guards.reconstruct(attack, measured.observation, shape, streams.child("reconstruct"))
    seconds = time.monotonic() - start
    scores = score_images(bench.suite, bench.evaluation.pixels, rebuilt, bench.device)
    scores.values["reid_top1"] = reid_top1(bench.features(rebuilt), bench.gallery)
    store.write_images(cell.key, rebuilt.permute(0, 2, 3, 1).numpy())
    if curve is not None:
        store.write_curve(cell.key, curve)
    return {
        "unconverged": convergence_failure(curve) if curve is not None else None,
        "floor": attack.floor,
        "unscored": scores.reasons,
        "attack_seconds": seconds,
        "scores": {name: values.tolist() for name, values in scores.values.items()},
    }


def run_exposure(bench: Bench, cells: list[Cell], store: RunFolder, finished: Callable[[Cell, str], None]) -> None:
    """Measures one exposure and runs its attacks, storing each cell as it is done.

    A cell that fails is stored as failed, with the reason, and the others go on.
    """
    exposure = cells[0].exposure
    measured = measure_exposure(bench, exposure)
    height, width = bench.evaluation.pixels.shape[2:]
    view = GrantedView(
        bench.victim,
        measured.defense,
        exposure.threat_model,
        image_shape=(3, int(height), int(width)),
        streams=Streams(exposure.seed, ("attacker",)),
        batch_size=bench.suite.batch_size,
        device=bench.device,
    )
    shared = {
        "costs": {name: values.tolist() for name, values in measured.costs.items()},
        "latency_ms": measured.latency_ms,
    }
    for cell in cells:
        try:
            outcome = {"status": "done", **run_attack(bench, cell, measured, view, store)}
        except LeakgaugeError as error:
            outcome = {"status": "failed", "reason": str(error), "scores": {}, "floor": False}
        store.write_part(cell.key, {"identity": identity(bench, cell), **shared, **outcome})
        finished(cell, outcome["status"])
