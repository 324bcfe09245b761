"""The number type in which a victim computes."""

from __future__ import annotations

from typing import Literal

import torch

from leakgauge.harness.errors import ConfigError

Precision = Literal["float32", "bfloat16", "float16"]


def dtype_of(precision: Precision, device: torch.device) -> torch.dtype:
    """Returns the number type; raises ConfigError where it is of no use on the device."""
    if precision == "float16" and device.type == "cpu":
        raise ConfigError("float16 is for GPUs", where="precision", hint="take bfloat16 on the CPU")
    dtype: torch.dtype = getattr(torch, precision)
    return dtype
