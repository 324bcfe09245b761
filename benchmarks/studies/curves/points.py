"""Measures the quality, the FLOPs and the payload of a task's victim under token reductions of rising strength."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from leakgauge.harness.contracts.task import Task
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.scoring.statistics import mean_interval
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams

SHARES = (0.02, 0.05, 0.1, 0.15, 0.25, 0.5)
"""Shares of the matches that merge in every block, for threshold and proportion."""
FIXED_SHARES = (0.01, 0.02, 0.03, 0.045, 0.06, 0.08)
"""Tokens merged in every block by ToMe, as shares of the patches."""
KEPT = (0.95, 0.85, 0.7, 0.5, 0.35, 0.2)
"""Shares of the tokens that top-k keeps at each of its three blocks."""
LATE_SHARES = (0.1, 0.2, 0.3, 0.5)
"""Shares of the matches that merge in every block of the later half, and none before."""
BATCH = 32
CALIBRATION_IMAGES = 64
METHODS = ("threshold", "threshold_late", "proportion", "tome", "random_merge", "random_drop", "top_k")


@dataclass(frozen=True)
class StudyPoint:
    """One operating point, means over the evaluation images.

    Args:
        method: Reduction.
        strength: Its setting, for people.
        images: Number of images.
        quality: Mean quality, with ``quality_lo`` and ``quality_hi`` its 95 % interval.
        quality_lo: Lower end.
        quality_hi: Upper end.
        gflops: An image, edge and server, matching and merging included.
        flops_share: Of the unreduced model's.
        tokens: Tokens sent an image.
        tokens_share: Of the unreduced model's.
        payload_bytes: Bytes an image with float16 values, header and sizes included.
        bytes_share: Of the unreduced payload's.
    """

    method: str
    strength: str
    images: int
    quality: float
    quality_lo: float
    quality_hi: float
    gflops: float
    flops_share: float
    tokens: float
    tokens_share: float
    payload_bytes: float
    bytes_share: float


def measure_curves(
    task: Task, device: torch.device, say: Callable[[StudyPoint], None], known: Iterable[StudyPoint] = ()
) -> list[StudyPoint]:
    """Measures every method at every strength; thresholds are calibrated on the task's calibration split.

    Args:
        task: Data, victim and quality.
        device: Where to compute.
        say: Told each point when it is measured.
        known: Points measured before, which are not measured again.
    """
    victim, images = task.victim(), task.split("evaluation")
    calibration = task.split("calibration").select(range(min(CALIBRATION_IMAGES, len(task.split("calibration")))))
    plain = _pipeline(victim, device, {"name": "none"})
    before = {(point.method, point.strength): point for point in known}
    base = before.get(_UNREDUCED) or _measure(task, plain, images, *_UNREDUCED, None)
    say(base)
    found = [base]
    for method, strength, reduction in _settings(plain, calibration):
        point = before.get((method, strength))
        if point is None:
            point = _measure(task, _pipeline(victim, device, reduction), images, method, strength, base)
        found.append(point)
        say(point)
    return found


_UNREDUCED = ("none", "unreduced")


def _pipeline(victim: Victim, device: torch.device, reduction: dict[str, Any]) -> Any:
    options = {"victim": victim, "device": device, "reduction": reduction, "codec": "float16"}
    return create("defenses", "split_pipeline", options)


def _settings(plain: Any, calibration: ImageSet) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields method, strength and reduction of every point but the unreduced one."""
    patches = plain.grid[0] * plain.grid[1]
    for share in SHARES:
        threshold = {"name": "threshold", "thresholds": plain.calibrated_thresholds(calibration, share)}
        yield "threshold", f"{share:.0%} of matches", threshold
        for control in ("random_merge", "random_drop"):
            yield control, f"as threshold at {share:.0%}", {"name": control, "match": threshold}
        yield "proportion", f"{share:.0%} of matches", {"name": "proportion", "proportions": share}
    for share in LATE_SHARES:
        shares = [0.0] * (plain.cut // 2) + [share] * (plain.cut - plain.cut // 2)
        thresholds = {"name": "threshold", "thresholds": plain.calibrated_thresholds(calibration, shares)}
        yield "threshold_late", f"{share:.0%} of matches, later half", thresholds
    for r in sorted({max(1, round(share * patches)) for share in FIXED_SHARES}):
        yield "tome", f"r = {r}", {"name": "tome", "r": r}
    for keep in KEPT:
        yield "top_k", f"keeps {keep:.0%} three times", {"name": "top_k", "keep": keep}


def _measure(
    task: Task, pipeline: Any, images: ImageSet, method: str, strength: str, base: StudyPoint | None
) -> StudyPoint:
    """Measures one operating point over all images."""
    quality, tokens, sizes, flops = [], 0, 0, 0
    rng = Streams(0).child("curves")
    for batch in images.batches(BATCH):
        # A matched control's reference run is the experimenter's, not the method's: done before FLOPs are counted.
        pipeline.encode(batch, rng) if method.startswith("random") else None
        with FlopCounterMode(display=False) as counter:
            transmission = pipeline.transmit(batch, rng)
            output = pipeline.respond(transmission)
        flops += counter.get_total_flops()
        quality.append(task.quality(output, task.target(batch)))
        tokens += int(transmission.received.lengths.sum())
        sizes += int(transmission.encoded.payload_bytes.sum())
    interval = mean_interval(torch.cat(quality), images.groups, rng)
    count = len(images)
    gflops, mean_tokens, mean_bytes = flops / count / 1e9, tokens / count, sizes / count
    return StudyPoint(
        method=method,
        strength=strength,
        images=count,
        quality=interval.mean,
        quality_lo=interval.lo,
        quality_hi=interval.hi,
        gflops=gflops,
        flops_share=1.0 if base is None else gflops / base.gflops,
        tokens=mean_tokens,
        tokens_share=1.0 if base is None else mean_tokens / base.tokens,
        payload_bytes=mean_bytes,
        bytes_share=1.0 if base is None else mean_bytes / base.payload_bytes,
    )
