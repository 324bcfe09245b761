"""Runs exposures in this process or in local worker processes. Numbers never depend on which."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from typing import Any

import torch

from leakgauge.harness.store import number_type
from leakgauge.harness.system.compat import end_workers

THREADS_PER_WORKER = 1
"""Every worker computes on one thread: sums then run in one order, whatever the number of workers."""


def default_workers(device: torch.device) -> int:
    """One worker a core on a CPU; one on a GPU."""
    if device.type == "cuda":
        return 1
    # What this process may use, where the system tells (macOS and Windows do not); else all there are.
    usable: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable is not None else os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Limits torch to THREADS_PER_WORKER threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS_PER_WORKER)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Bound now: while a plug-in runs, ``os._exit`` is another (leakgauge.harness.system.containment).
_leave = os._exit


def _start_worker(number_types: str) -> None:
    os.environ[number_type.VARIABLE] = number_types
    torch.set_num_threads(THREADS_PER_WORKER)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """Ends this worker when the run is killed: it would work on for nobody, beside the run that resumes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        _leave(1)


def run_jobs(
    function: Callable[..., None], jobs: list[tuple[Any, ...]], workers: int, tick: Callable[[], None]
) -> None:
    """Calls ``function(*job)`` for every job, in order, on ``workers`` processes.

    Args:
        function: A module-level function.
        jobs: Arguments of each call; they must pickle.
        workers: Processes; 1 runs everything here.
        tick: Called a few times a second from this process while jobs run, for progress.

    Raises:
        Exception: The first that a job raised; the others are cancelled, and finished work stays on disk.
    """
    if workers == 1 or len(jobs) <= 1:
        with one_thread():
            for job in jobs:
                function(*job)
                tick()
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), mp_context=context, initializer=_start_worker, initargs=(number_type.told(),)
    )
    try:
        pending: set[Future[None]] = {pool.submit(function, *job) for job in jobs}
        while pending:
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            tick()
            for future in done:
                future.result()
    except BaseException:
        end_workers(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
