"""The machine: its device, and what of it decides the last digits of a number: processor, instruction set, kernels."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

import torch

from leakgauge.harness.errors import ConfigError

_FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve", "bf16")
_CHOOSING = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")


@cache
def processor() -> dict[str, str]:
    """Returns the processor's name, and which of the instruction sets that kernels choose by it has."""
    name, flags = platform.processor(), set[str]()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        if key.strip() in {"flags", "Features"}:
            flags |= set(value.split())
    return {"processor": name or "unknown", "instructions": " ".join(flag for flag in _FLAGS if flag in flags)}


def kernels() -> dict[str, str]:
    """Returns which kernels torch computes with on the processor, and what chooses them."""
    return {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": str(torch.backends.mkldnn.is_available()),  # type: ignore[no-untyped-call]
        "mkl": str(torch.backends.mkl.is_available()),  # type: ignore[no-untyped-call]
        "float32_precision": torch.get_float32_matmul_precision(),
        **{name: os.environ[name] for name in _CHOOSING if name in os.environ},
    }


def machine_of(device: torch.device) -> dict[str, str]:
    """Returns all of the machine that may move a number computed on ``device``."""
    found = {"architecture": platform.machine(), **processor(), **kernels(), "device": device.type}
    if device.type == "cuda":
        found |= {
            "gpu": _gpu(device),
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        }
    return found


def _gpu(device: torch.device) -> str:
    try:
        return torch.cuda.get_device_name(device)
    except (AssertionError, RuntimeError):
        return "none here"


def choose_device(name: str) -> torch.device:
    """Turns ``auto``, ``cpu`` or ``cuda`` into a device.

    Raises:
        ConfigError: The name is unknown, or there is no such device.
    """
    if name not in {"auto", "cpu", "cuda"}:
        raise ConfigError(f"unknown device {name!r}", where="--device", hint="give auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device here", where="--device", hint="give --device auto or cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
