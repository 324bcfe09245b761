"""The one measurement of an operating point: what it sends of images, what that costs, how good the answers are.

Runs, searches and inspections measure through here, so that a number of one is that of the others: same streams, same
batches. What is measured beside it, by attackers, stands in ``leakgauge.harness.measurement.exposure``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from leakgauge.harness.contracts.defense import Defense
from leakgauge.harness.contracts.link import Encoded, Transmission
from leakgauge.harness.contracts.task import Task
from leakgauge.harness.measurement.context import Context
from leakgauge.harness.measurement.transmitting import Cached, compute_anew, pass_through
from leakgauge.harness.scoring import guards
from leakgauge.harness.scoring.compute import measure_flops, measure_latency_ms
from leakgauge.harness.values.flops import Flops
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.questions import Questions
from leakgauge.harness.values.seeding import Streams

LATENCY_IMAGES = 19


class Preparation(NamedTuple):
    """What an operating point is prepared with: images of the calibration split, and random streams."""

    calibration: ImageSet
    rng: Streams


class CountsFlops(Protocol):
    """Counts the operations of a defense, as ``scoring.compute.measure_flops`` does."""

    def __call__(
        self,
        defense: Defense,
        images: ImageSet,
        transmission: Transmission,
        rng: Streams,
        questions: Questions | None = None,
        output: Tensor | None = None,
    ) -> Flops:
        """Returns them, an image."""


@dataclass(frozen=True)
class PointMeasurement:
    """An operating point as measured on B images.

    Args:
        defense: It, prepared.
        preparation: What it was prepared with; None where it needs nothing.
        encoded: What its edge made of the images, which other receivers are sent again.
        transmission: What the server received.
        output: (B, ...) what the server answered.
        costs: (B,) each: ``quality``, ``gflops_*`` and what ``link_costs`` tells, by column name.
        resolved: What calibration made of the operating point; empty where its options leave nothing to it.
        latency_ms: Of edge and server for one image; None where it was not timed.
    """

    defense: Defense
    preparation: Preparation | None
    encoded: Encoded
    transmission: Transmission
    output: Tensor
    costs: dict[str, Tensor]
    resolved: Mapping[str, object]
    latency_ms: float | None


def prepare(task: Task, defense: Defense, streams: Streams) -> Preparation | None:
    """Prepares a defense on the calibration split, which may take long to load, where it needs that."""
    if not defense.needs_calibration:
        return None
    preparation = Preparation(task.split("calibration").clone(), streams.child("prepare"))
    defense.prepare(*preparation)
    return preparation


def measure(
    context: Context,
    defense: Defense,
    images: ImageSet,
    streams: Streams,
    *,
    cached: Cached = compute_anew,
    count: CountsFlops = measure_flops,
    timed: bool = False,
) -> PointMeasurement:
    """Sends images once and measures quality, compute and bandwidth.

    Args:
        context: Task, victim and sizes.
        defense: The operating point; it is prepared here where it needs that.
        images: B images.
        streams: Random streams.
        cached: Looks up what the edge sent before it has to run.
        count: Counts FLOPs.
        timed: Also takes the time of single images, which is no business of whoever does not report it.
    """
    preparation = prepare(context.task, defense, streams)
    questions = context.task.questions(images)
    sizes = (context.batch_size, context.bandwidth_hz)
    passed = pass_through(defense, images, questions, streams, *sizes, cached)
    flops = count(defense, images, passed.transmission, streams, questions, passed.output)
    costs = {
        "quality": guards.quality(context.task, passed.output, context.task.target(images)),
        "gflops_edge": flops.edge,
        "gflops_total": flops.total,
        **{f"gflops_{name}": values for name, values in flops.parts.items()},
        **passed.costs,
    }
    if questions is not None:
        costs["questions"] = torch.tensor(questions.counts)
    return PointMeasurement(
        defense,
        preparation,
        passed.encoded,
        passed.transmission,
        passed.output,
        costs,
        defense.resolved(),
        _latency_ms(context, defense, images, streams) if timed else None,
    )


def _latency_ms(context: Context, defense: Defense, images: ImageSet, streams: Streams) -> float:
    """Returns the median milliseconds of one image at batch 1, over LATENCY_IMAGES of the images."""
    sample = images.select(range(0, len(images), max(1, len(images) // LATENCY_IMAGES)))
    return measure_latency_ms(defense, sample, streams, context.device, context.task.questions(sample))
