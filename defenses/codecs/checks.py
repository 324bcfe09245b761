"""Checks that all codecs share: values before they are written, and lengths before anything is allocated."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leakgauge.harness.errors import PayloadError

WHERE = "payload"
DAMAGED = "the payload is damaged; send it again"


def checked_values(tokens: Tensor, limit: float, name: str) -> NDArray[np.float32]:
    """Returns tokens (n, D) as a float32 array on the CPU.

    Raises:
        PayloadError: A value is not finite, or beyond ``limit``, the range of the number type ``name``.
    """
    if not bool(torch.isfinite(tokens).all()):
        raise PayloadError("tokens hold NaN or infinite values", where=WHERE, hint="check weights and input images")
    if tokens.numel() and float(tokens.abs().max()) > limit:
        raise PayloadError(
            f"a token value exceeds {limit:g}, the range of {name}", where=WHERE, hint="use codec float32"
        )
    values: NDArray[np.float32] = tokens.detach().to("cpu", torch.float32).numpy()
    return values


def check_length(data: bytes, expected: int) -> None:
    """Raises PayloadError unless ``data`` is exactly ``expected`` bytes long."""
    if len(data) != expected:
        raise PayloadError(f"token data is {len(data)} bytes long, expected {expected}", where=WHERE, hint=DAMAGED)
