"""Runs jobs in this process or in local worker processes. Numbers never depend on which."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from typing import Any

import torch

from leakgauge.harness.store import number_type
from leakgauge.harness.system.compat import end_workers

THREADS_PER_WORKER = 1
"""Every worker computes on one thread: sums then run in one order, whatever the number of workers."""
POLL_S = 0.5


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
    function: Callable[..., None],
    jobs: Sequence[tuple[Any, ...]],
    workers: int,
    tick: Callable[[], None],
    lost: Callable[[Exception], None] | None = None,
) -> None:
    """Calls ``function(*job)`` for every job, begun in order, on ``workers`` processes: of runs and searches alike.

    Args:
        function: A module-level function.
        jobs: Arguments of each call; they must pickle.
        workers: Processes; 1 runs everything here.
        tick: Called a few times a second from this process while jobs run, for progress.
        lost: Told of a job that failed or whose worker died, while the others go on; without it the first ends all.

    Raises:
        Exception: The first that a job raised, where nobody is told; the others are cancelled, and finished work stays
            on disk.
        BrokenProcessPool: A worker died, where nobody is told; or all did, and jobs are left.
    """
    if workers == 1 or len(jobs) <= 1:
        with one_thread():
            for job in jobs:
                function(*job)
                tick()
        return
    # A pool each: with the death of a process its pool is at an end.
    pools = [_pool() for _ in range(min(workers, len(jobs)))]
    try:
        _hand_out(function, deque(jobs), list(pools), tick, lost)
    except BaseException:
        for pool in pools:
            end_workers(pool)
        raise
    finally:
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)


def _pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_start_worker, initargs=(number_type.told(),))


def _hand_out(
    function: Callable[..., None],
    waiting: deque[tuple[Any, ...]],
    free: list[ProcessPoolExecutor],
    tick: Callable[[], None],
    lost: Callable[[Exception], None] | None,
) -> None:
    """Gives each worker the next job as it gets free, until all are done."""
    running: dict[Future[None], ProcessPoolExecutor] = {}
    while waiting or running:
        while waiting and free:
            pool = free.pop(0)
            running[pool.submit(function, *waiting.popleft())] = pool
        if not running:
            raise BrokenProcessPool("all workers died")
        done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
        tick()
        for future in done:
            pool = running.pop(future)
            try:
                future.result()
            except Exception as error:
                if lost is None:
                    raise
                lost(error)
                if isinstance(error, BrokenProcessPool):
                    continue
            free.append(pool)
