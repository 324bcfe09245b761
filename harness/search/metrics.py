"""What a trial measures: the metrics that objectives and constraints may name."""

from __future__ import annotations

from typing import Literal, get_args

MetricName = Literal[
    "quality",
    "gflops_edge",
    "gflops_total",
    "tokens",
    "payload_bytes",
    "channel_uses",
    "latency_ms",
    "leakage",
]
"""Means over the search images. ``quality`` lies in [0, 1]; ``gflops_*`` are GFLOP an image, ``tokens`` sent an image,
``payload_bytes`` an image, ``channel_uses`` complex symbols an image, ``latency_ms`` the median at batch 1, by the
clock, and ``leakage`` dB of a proxy attack (``leakgauge.harness.search.space.Proxy``)."""
METRICS: tuple[str, ...] = get_args(MetricName)
HIGHER_IS_BETTER = frozenset({"quality"})
