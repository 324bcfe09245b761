"""Imports sionna late and without its side effect on torch's global generators."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

import torch


@cache
def sionna_module(name: str) -> ModuleType:
    """Imports a module of sionna's physical layer on first use; it takes seconds and loads matplotlib.

    Args:
        name: Path below ``sionna.phy``, such as ``mapping`` or ``fec.ldpc``.
    """
    # sionna.phy seeds torch's default generators from the clock when imported: whoever drew from them after that
    # would get other numbers on every run.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        return import_module(f"sionna.phy.{name}")
