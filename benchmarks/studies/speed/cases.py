"""What is timed against what, for one model and batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from leakgauge.benchmarks.studies.speed.padded import padded_forward
from leakgauge.benchmarks.studies.speed.timing import Ratio, Run, gflops_of, paired_seconds, span_shares
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams

SHARES = (0.1, 0.25, 0.5)
"""Shares of the matches that merge in every block; a quarter halves the FLOPs or better."""
FIXED_R = (8, 16)
MICRO_BATCHES = (2, 4, 8, 16, 32)
SPANS = ("leakgauge.match", "leakgauge.merge")


@dataclass(frozen=True)
class CaseRow:
    """One line of the table: a strategy against the best unmerged batch size of the unmodified model.

    Args:
        model: Name of the model.
        batch: Images a run.
        strategy: What ran.
        tokens: Tokens an image at the end: mean, smallest, largest.
        gflops: An image.
        flop_ratio: FLOPs of the unmodified model over these.
        speedup: Time of the unmodified model over this one's, in the same repetition.
        efficiency: Speedup over FLOP ratio; 1 is the physical limit at equal hardware use.
        match_share: Share of the time that goes into deciding what to merge, or None.
        merge_share: Share that goes into merging, or None.
        seconds: Median seconds of a run.
    """

    model: str
    batch: int
    strategy: str
    tokens: tuple[float, int, int]
    gflops: float
    flop_ratio: float
    speedup: Ratio
    efficiency: float
    match_share: float | None
    merge_share: float | None
    seconds: float


@dataclass(frozen=True)
class Setup:
    """What every case of a model shares: the victim, its name, the device and how to time."""

    victim: Victim
    name: str
    device: torch.device
    repetitions: int
    cpu_time: bool
    shares: tuple[float, ...] = SHARES


class _Case:
    """The runs for one batch, by name, with the token counts that each leaves."""

    def __init__(self, setup: Setup, images: ImageSet, calibration: ImageSet) -> None:
        self.setup, self.images = setup, images
        self.runs: dict[str, Run] = {}
        self.tokens: dict[str, torch.Tensor] = {}
        self._add_packed("packed, never", {"name": "threshold", "thresholds": 1.0})
        plain = self._pipeline("none")
        for share in setup.shares:
            thresholds = plain.calibrated_thresholds(calibration, share)
            self._add_packed(f"packed, {share:.0%} of matches", {"name": "threshold", "thresholds": thresholds})
            if share == 0.25:
                self._add_padded(thresholds, self.tokens[f"packed, {share:.0%} of matches"])
        for r in FIXED_R:
            self._add_packed(f"packed, r = {r}", {"name": "tome", "r": r})

    def _pipeline(self, reduction: Any) -> Any:
        options = {"victim": self.setup.victim, "device": self.setup.device, "reduction": reduction}
        return create("defenses", "split_pipeline", options)

    def _add_packed(self, name: str, reduction: dict[str, Any]) -> None:
        pipeline, rng = self._pipeline(reduction), Streams(0)
        self.runs[name] = lambda: pipeline.server.logits(pipeline.edge.run(self.images, rng)[0])
        self.tokens[name] = pipeline.edge.run(self.images, rng)[1][:, -1].cpu()

    def _add_padded(self, thresholds: list[float], tokens: torch.Tensor) -> None:
        victim = self.setup.victim
        for name, compact in (("padded, masked", False), ("padded, compacted", True)):
            self.runs[name] = _padded_run(victim, self.images, thresholds, compact=compact)
            self.tokens[name] = tokens


def _padded_run(victim: Victim, images: ImageSet, thresholds: list[float], *, compact: bool) -> Run:
    return lambda: padded_forward(victim.model, victim.normalise(images.images()), thresholds, compact=compact)


def unmerged(setup: Setup, images: ImageSet, micro_batch: int) -> Run:
    """Returns a run of the unmodified model, ``micro_batch`` images at a time."""

    def run() -> None:
        with torch.no_grad():
            for part in images.batches(micro_batch):
                setup.victim.predict(part.images().to(setup.device))

    return run


def best_micro_batch(setup: Setup, images: ImageSet) -> int:
    """Returns the batch size at which the unmodified model is fastest: a slower one would flatter merging."""
    images = images.select(range(min(len(images), MICRO_BATCHES[-1])))
    sizes = [size for size in MICRO_BATCHES if size <= len(images)]
    runs = {str(size): unmerged(setup, images, size) for size in sizes}
    seconds = paired_seconds(runs, setup.device, 3, cpu_time=setup.cpu_time)
    return min(sizes, key=lambda size: min(seconds[str(size)]))


def measure(
    setup: Setup, images: ImageSet, calibration: ImageSet, say: Callable[[str], None] = lambda _: None
) -> list[CaseRow]:
    """Times all strategies on one batch.

    Args:
        setup: The model and how to time it.
        images: One batch.
        calibration: Other images, on which thresholds are calibrated.
        say: Told about progress.
    """
    micro = best_micro_batch(setup, images)
    say(f"{setup.name}, batch {len(images)}: the unmodified model is fastest at {micro} images a batch")
    case = _Case(setup, images, calibration)
    base = f"unmodified, {micro} at a time"
    if setup.device.type != "cpu":
        # The plain padded baseline is written for the CPU.
        case.runs = {name: run for name, run in case.runs.items() if not name.startswith("padded")}
    runs = {base: unmerged(setup, images, micro)} | case.runs
    flops = {name: gflops_of(run, len(images)) for name, run in runs.items()}
    seconds = paired_seconds(runs, setup.device, setup.repetitions, cpu_time=setup.cpu_time)
    rows = []
    for name, run in case.runs.items():
        speedup = Ratio.of([a / b for a, b in zip(seconds[base], seconds[name], strict=True)])
        spans = span_shares(run, SPANS) if name.startswith("packed") else {}
        tokens = case.tokens[name].double()
        rows.append(
            CaseRow(
                model=setup.name,
                batch=len(images),
                strategy=name,
                tokens=(float(tokens.mean()), int(tokens.min()), int(tokens.max())),
                gflops=flops[name],
                flop_ratio=flops[base] / flops[name],
                speedup=speedup,
                efficiency=speedup.median * flops[name] / flops[base],
                match_share=spans.get(SPANS[0]),
                merge_share=spans.get(SPANS[1]),
                seconds=sorted(seconds[name])[len(seconds[name]) // 2],
            )
        )
        say(f"  {name}: {speedup.median:.2f}x at {flops[base] / flops[name]:.2f}x fewer FLOPs")
    return rows


def victim_of(model: nn.Module, name: str, device: torch.device) -> Victim:
    """Wraps a model; normalisation does not matter to speed."""
    return Victim(model.to(device).eval(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "none", name)
