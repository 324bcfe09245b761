"""Compute cost: FLOPs of the operations really run, per image, and latency.

Both are a pure function of the operating point and the images: whatever ran before, tokens that came from a cache, or
an earlier part of a run that was resumed, they are the same. Every image is therefore sent once uncounted before it
counts. What that first time alone does is not the defense's: the reference run of a matched control is there so that an
experimenter can compare at equal token counts; a device that merged at random would draw its counts and run none.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from leakgauge.harness.contracts.defense import Accountable, Defense
from leakgauge.harness.contracts.link import Transmission
from leakgauge.harness.errors import PluginError
from leakgauge.harness.values.flops import Flops
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams

WARM_UP, TIMED = 3, 16
READY = 64
"""Images sent uncounted at a time."""


def measure_flops(
    defense: Defense,
    images: ImageSet,
    transmission: Transmission,
    rng: Streams,
    questions: Any = None,
    output: Tensor | None = None,
) -> Flops:
    """Counts matrix products, convolutions and attention by running images alone, at batch 1.

    The operations depend on an image only through its token counts, so one image is run for each distinct row of
    ``tokens_per_layer`` and number of tokens received. Element-wise operations are not counted, as in
    torch.utils.flop_counter.

    Args:
        defense: The defense, prepared.
        images: The images.
        transmission: What ``defense`` made of them with ``rng``'s children ``encode`` and ``channel``, whether now or
            when it was put into a cache; what a channel loses is lost here too.
        rng: Random streams.
        questions: What is asked about the images, where the task asks.
        output: What the defense answered; needed with ``questions``.

    Raises:
        PluginError: There are questions, and the defense does not tell what answering them costs.
    """
    told = defense if output is not None and isinstance(defense, Accountable) else None
    parts = None if told is None or output is None else told.server_flops(transmission, questions, output)
    if questions is not None and parts is None:
        raise PluginError(
            f"defense {defense.name!r} does not tell what answering a question costs",
            hint="give it `server_flops` (leakgauge.harness.contracts.defense.Accountable)",
        )
    known: dict[tuple[int, ...], tuple[float, float]] = {}
    edge, total = [], []
    received = transmission.received.lengths.tolist()
    keys = [(*counts, received[i]) for i, counts in enumerate(transmission.encoded.tokens_per_layer.tolist())]
    _ready(defense, images.select([keys.index(key) for key in dict.fromkeys(keys)]), rng)
    for i, key in enumerate(keys):
        if key not in known:
            one = images.select([i])
            with FlopCounterMode(display=False) as before:
                sent = defense.encode(one, rng.child("encode"))
            with FlopCounterMode(display=False) as after:
                if parts is None:
                    defense.respond(defense.send(sent, rng.child("channel")))
            known[key] = (float(before.get_total_flops()), float(after.get_total_flops()))
        edge.append(known[key][0] / 1e9)
        total.append(sum(known[key]) / 1e9)
    before_sending = torch.tensor(edge, dtype=torch.float64)
    if parts is not None and told is not None:
        return with_parts(before_sending, parts, told.projects_on_edge)
    return Flops(before_sending, torch.tensor(total, dtype=torch.float64))


def _ready(defense: Defense, images: ImageSet, rng: Streams) -> None:
    """Runs the edge on images uncounted, so that it stands as it does where they were sent before."""
    for start in range(0, len(images), READY):
        defense.encode(images.select(range(start, min(start + READY, len(images)))), rng.child("encode"))


def with_parts(edge: Tensor, server: dict[str, Tensor], projects_on_edge: bool) -> Flops:
    """Joins what the edge costs (B,) with the parts of the server.

    Args:
        edge: (B,) GFLOP before the payload is sent.
        server: (B,) GFLOP by part; ``tower`` of the blocks left for the server, ``projector`` wherever it runs.
        projects_on_edge: Whether ``edge`` holds the projector.
    """
    tower = server["tower"] + edge - (server["projector"] if projects_on_edge else 0)
    parts = {**server, "tower": tower}
    return Flops(edge, sum(parts.values(), torch.zeros_like(edge)), parts)


def measure_latency_ms(
    defense: Defense, images: ImageSet, rng: Streams, device: torch.device, questions: Any = None
) -> float:
    """Returns the median milliseconds of edge and server for one image at batch 1, after a warm-up.

    Where the task asks, it is the time to answer all questions about an image.
    """
    times = []
    for i in range(min(len(images), WARM_UP + TIMED)):
        one = images.select([i])
        _ready(defense, one, rng)
        start = time.perf_counter()
        defense.respond(defense.transmit(one, rng), None if questions is None else questions.select([i]))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if i >= WARM_UP:
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times) if times else float("nan")
