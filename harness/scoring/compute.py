"""Compute cost: FLOPs of the operations really run, per image, and latency."""

from __future__ import annotations

import statistics
import time
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from harness.contracts import Defense
from harness.images import ImageSet
from harness.link import Transmission
from harness.seeding import Streams

WARM_UP, TIMED = 3, 16


class Flops(NamedTuple):
    """(B,) GFLOP an image before the payload is sent, and in total; 2 per multiply-add, merging included."""

    edge: Tensor
    total: Tensor


def measure_flops(defense: Defense, images: ImageSet, transmission: Transmission, rng: Streams) -> Flops:
    """Counts matrix products, convolutions and attention by running images alone, at batch 1.

    The operations depend on an image only through its token counts, so one image is run for each distinct row of
    ``tokens_per_layer`` and number of tokens received. Element-wise operations are not counted, as in
    torch.utils.flop_counter.

    Args:
        defense: The defense, prepared.
        images: The images.
        transmission: What ``defense`` made of them with ``rng``'s children ``encode`` and ``channel``; a matched
            control's reference run is therefore already known, and what a channel loses is lost here too.
        rng: Random streams.
    """
    known: dict[tuple[int, ...], tuple[float, float]] = {}
    edge, total = [], []
    received = transmission.received.lengths.tolist()
    for i, counts in enumerate(transmission.encoded.tokens_per_layer.tolist()):
        key = (*counts, received[i])
        if key not in known:
            one = images.select([i])
            with FlopCounterMode(display=False) as before:
                sent = defense.encode(one, rng.child("encode"))
            arrived = defense.send(sent, rng.child("channel"))
            with FlopCounterMode(display=False) as after:
                defense.respond(arrived)
            known[key] = (float(before.get_total_flops()), float(after.get_total_flops()))
        edge.append(known[key][0] / 1e9)
        total.append(sum(known[key]) / 1e9)
    return Flops(torch.tensor(edge, dtype=torch.float64), torch.tensor(total, dtype=torch.float64))


def measure_latency_ms(defense: Defense, images: ImageSet, rng: Streams, device: torch.device) -> float:
    """Returns the median milliseconds of edge and server for one image at batch 1, after a warm-up."""
    times = []
    for i in range(min(len(images), WARM_UP + TIMED)):
        one = images.select([i])
        start = time.perf_counter()
        defense.respond(defense.transmit(one, rng))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if i >= WARM_UP:
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times) if times else float("nan")
