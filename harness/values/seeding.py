"""Named random streams: every random number is addressed by a path of names, never by the order of calls.

A generator is derived by hashing its path, so that adding a cell, changing the worker count or shuffling a batch
changes no number anywhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Streams:
    """A node in the tree of named random streams.

    Args:
        seed: The seed that the suite states.
        path: Names from the root to this node.
    """

    seed: int
    path: tuple[str, ...] = ()

    def child(self, *names: object) -> Streams:
        """Returns the stream below this one that ``names`` address."""
        return Streams(self.seed, self.path + tuple(str(name) for name in names))

    def entropy(self) -> int:
        """Returns 63 bits that depend on the seed and the path alone."""
        # A length before each name keeps ("ab", "c") and ("a", "bc") apart.
        text = "".join(f"{len(name)}:{name}" for name in (str(self.seed), *self.path))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def torch(self) -> torch.Generator:
        """Returns a CPU generator; draw on the CPU and move, so that devices agree."""
        return torch.Generator().manual_seed(self.entropy())

    def numpy(self) -> np.random.Generator:
        """Returns a NumPy generator (PCG64)."""
        return np.random.default_rng(self.entropy())

    def normal_per_image(self, ids: Sequence[str], lengths: Tensor, width: int) -> Tensor:
        """Draws standard normal rows whose values depend on their own image alone.

        Args:
            ids: Image identifiers, length B.
            lengths: (B,) rows an image.
            width: Columns.

        Returns:
            (sum of lengths, width) float32 on the CPU, in packed order.
        """
        rows = [
            torch.randn(int(length), width, generator=self.child(image_id).torch())
            for image_id, length in zip(ids, lengths.tolist(), strict=True)
        ]
        return torch.cat(rows) if rows else torch.empty(0, width)
