"""Says before a run how many tokens each operating point keeps: thresholds do not carry over from model to model."""

from __future__ import annotations

from collections.abc import Iterator

from leakgauge.harness.measurement.context import Bench
from leakgauge.harness.run.executors import one_thread
from leakgauge.harness.suite.planning import build_defense, defense_config
from leakgauge.harness.system.containment import contained
from leakgauge.harness.values.seeding import Streams

LOOKED_AT = 16
"""Calibration images that are run through the edge: enough to tell a third from a tenth, few enough for seconds."""


def kept_tokens(bench: Bench) -> Iterator[tuple[str, int, float]]:
    """Yields (name, images, mean share of the tokens that is left after the edge) of each operating point.

    The images are evenly spaced over the calibration split, and what is left to calibration is calibrated on them
    alone, so that a run may find slightly other thresholds. Defenses that do not tell are left out.

    Raises:
        LeakgaugeError: A defense cannot run, or what is to be kept cannot be reached.
    """
    suite = bench.suite
    images = bench.task.split("calibration").evenly_spaced(LOOKED_AT).clone()
    rng = Streams(suite.seeds[0], ("evaluation",)).child("encode")
    for point in suite.operating_points:
        config = defense_config(suite, point, suite.channels[0])
        defense = build_defense(config, point.name, bench.victim, bench.device)
        with one_thread(), contained("counting tokens", f"operating point {point.name!r}"):
            kept = defense.tokens_kept(images, rng)
        if kept is not None:
            yield point.name, len(images), kept
