"""Paired timing: every strategy runs once in each repetition, and ratios are taken within a repetition."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

Run = Callable[[], object]


class Ratio(NamedTuple):
    """Median, smallest and largest of the ratios of the repetitions."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Ratio:
        """Summarises the ratios ``values``."""
        return cls(statistics.median(values), min(values), max(values))


def seconds_of(run: Run, device: torch.device, *, cpu_time: bool) -> float:
    """Returns the seconds of one run: wall clock, or the CPU time of all threads (for shared machines)."""
    clock = time.process_time if cpu_time else time.perf_counter
    _synchronise(device)
    start = clock()
    run()
    _synchronise(device)
    return clock() - start


def paired_seconds(
    runs: dict[str, Run], device: torch.device, repetitions: int, *, cpu_time: bool = False, warm_up: int = 1
) -> dict[str, list[float]]:
    """Times every run ``repetitions`` times, in an order that turns by one place in each repetition.

    Returns:
        Seconds by name, one for each repetition.
    """
    for run in runs.values():
        for _ in range(warm_up):
            run()
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repetition in range(repetitions):
        turn = repetition % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(seconds_of(runs[name], device, cpu_time=cpu_time))
    return seconds


def gflops_of(run: Run, images: int) -> float:
    """Returns the GFLOP an image of one run, 2 per multiply-add, padding counted as the work that it is."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops()) / images / 1e9


def span_shares(run: Run, spans: tuple[str, ...]) -> dict[str, float]:
    """Returns the share of a run's CPU time that falls into each named profiler span."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        run()
        total = time.perf_counter() - start
    events = {event.key: event.cpu_time_total / 1e6 for event in profiler.key_averages()}
    return {span: events.get(span, 0.0) / total for span in spans}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
