"""Chooses between float32 and bfloat16 by measuring which of them this machine computes faster.

No flag of a processor is asked: bfloat16 is several times faster where there are units for it, and 26 times slower
where it is emulated. The choice moves numbers within the noise of a seed, so it must not depend on luck: bfloat16 has
to be faster by ``MARGIN``, on one thread, in the best of several tries; the first answer is kept in the cache of this
machine; a run hands it to its workers and writes it into its provenance. ``LEAKGAUGE_BFLOAT16`` overrides it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import linear

from leakgauge.harness.errors import ConfigError, StoreError
from leakgauge.harness.store.token_cache import cache_folder
from leakgauge.harness.system.files.atomic_file import write_atomic

Use = Literal["autocast", "orthogonalise"]
"""``autocast``: layers of a network in training; ``orthogonalise``: products of small square matrices, as in Muon."""
USES: tuple[Use, ...] = get_args(Use)
VARIABLE = "LEAKGAUGE_BFLOAT16"
MARGIN = 1.5
"""How many times faster bfloat16 must be: on hardware where the two are near each other float32 is taken every time."""
TRIES = 7
_log = logging.getLogger(__name__)


def training_type(device: torch.device, use: Use = "autocast") -> torch.dtype:
    """Returns the number type for a use: bfloat16 on GPUs that have it, and on CPUs where it is measured faster.

    Raises:
        ConfigError: ``LEAKGAUGE_BFLOAT16`` holds something else than uses.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if chosen_uses()[use] else torch.float32


def autocast(device: torch.device) -> torch.autocast:
    """Returns the context in which networks are trained on a device; it does nothing where float32 is faster."""
    return torch.autocast(device.type, torch.bfloat16, enabled=training_type(device) == torch.bfloat16)


def chosen_uses() -> dict[Use, bool]:
    """Returns for every use whether the CPU takes bfloat16: as told, else as remembered, else as measured."""
    told = os.environ.get(VARIABLE)
    return _measured_once() if told is None else _read(told)


def told() -> str:
    """Returns this process's choice in the words of ``LEAKGAUGE_BFLOAT16``, to hand to the processes that it starts."""
    return ",".join(use for use, taken in chosen_uses().items() if taken) or "none"


def facts() -> dict[str, str]:
    """Returns the choice by use, for provenance."""
    return {use: "bfloat16" if taken else "float32" for use, taken in chosen_uses().items()}


def _read(told: str) -> dict[Use, bool]:
    names = set(USES) if told == "all" else set() if told == "none" else {name.strip() for name in told.split(",")}
    if names - set(USES):
        raise ConfigError(
            f"{VARIABLE}={told[:60]!r} is not understood", hint=f"write none, all, or some of {', '.join(USES)}"
        )
    return {use: use in names for use in USES}


@cache
def _measured_once() -> dict[Use, bool]:
    """Returns the choice that this machine's cache holds, or measures and keeps it there."""
    folder = cache_folder()
    note = None if folder is None else folder / f"number_type-{_machine()}.json"
    found = None if note is None else _recalled(note)
    if found is not None:
        return found
    chosen = {use: measure(use) >= MARGIN for use in USES}
    if note is not None:
        try:
            write_atomic(note, json.dumps(chosen).encode())
        except (OSError, StoreError) as error:
            _log.warning("%s cannot be written (%s): the number type is measured anew every time", note, error)
    return chosen


def _recalled(note: Path) -> dict[Use, bool] | None:
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and set(found) == set(USES) and all(isinstance(v, bool) for v in found.values())
    return found if whole else None


def _machine() -> str:
    """Returns 16 hex digits of what the answer depends on: the processor, its masked instruction sets, torch."""
    masks = [os.environ.get(name, "") for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")]
    about = [platform.machine(), _processor(), torch.backends.cpu.get_cpu_capability(), torch.__version__, *masks]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _processor() -> str:
    """Returns the processor's name and abilities as Linux tells them, elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return " ".join(sorted({line for line in lines if line.lower().startswith(("model name", "flags", "features"))}))


def measure(use: Use, tries: int = TRIES) -> float:
    """Returns how many times faster bfloat16 is than float32 at a use, on one CPU thread.

    Where float32 is ahead fourfold after the first tries, no more are made: emulated bfloat16 is slow to measure.
    """
    work = _WORK[use]
    with _one_thread():
        single, half = work(torch.float32), work(torch.bfloat16)
        best = {"single": float("inf"), "half": float("inf")}
        for one in range(tries):
            best["single"] = min(best["single"], _seconds(single))
            best["half"] = min(best["half"], _seconds(half))
            if one and best["half"] > 4 * best["single"]:
                break
    return best["single"] / best["half"]


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _layer(number_type: torch.dtype) -> Callable[[], object]:
    """A linear layer forward and backward, as large as in the attackers of the shipped suites."""
    inputs, weight = torch.ones(1024, 128), torch.ones(128, 128, requires_grad=True)

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=number_type == torch.bfloat16):
            output = linear(inputs, weight)
        return torch.autograd.grad(output.float().sum(), weight)[0]

    return run


def _products(number_type: torch.dtype) -> Callable[[], object]:
    """Products of square matrices, a few in a row."""
    matrix = torch.full((128, 128), 1 / 128, dtype=number_type)

    def run() -> Tensor:
        return matrix @ matrix @ matrix @ matrix

    return run


_WORK: dict[Use, Callable[[torch.dtype], Callable[[], object]]] = {"autocast": _layer, "orthogonalise": _products}
