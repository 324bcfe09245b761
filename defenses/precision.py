"""The number type in which a victim computes."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from harness.errors import ConfigError
from harness.registry import suggest

Precision = Literal["float32", "bfloat16", "float16"]


def dtype_of(precision: Precision, device: torch.device) -> torch.dtype:
    """Returns the number type; raises ConfigError where it is unknown or of no use on the device."""
    if precision not in get_args(Precision):
        raise ConfigError(f"unknown precision {precision!r}", mend=suggest(str(precision), [*get_args(Precision)]))
    if precision == "float16" and device.type == "cpu":
        raise ConfigError("float16 is for GPUs", where="precision", mend="take bfloat16 on the CPU")
    dtype: torch.dtype = getattr(torch, precision)
    return dtype
