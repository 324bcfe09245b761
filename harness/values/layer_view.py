"""What an inspection of one image shows: the patches of each token after every block, and the costs so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from leakgauge.harness.errors import PluginError
from leakgauge.harness.system.json_data import Json
from leakgauge.harness.values.tokens import DROPPED


@dataclass(frozen=True)
class LayerView:
    """One image's tokens after one edge block.

    Args:
        layer: Block number, from 0.
        prefix: Protected tokens at the start.
        merge_map: (N,) int64, for each source patch the index of its token (prefix included), or ``DROPPED``.
        sizes: (n,) int64 source patches a token; 1 for protected tokens.
        gflops: GFLOP from the image up to and including this block, 2 per multiply-add, merging included.
        payload_bytes: ``len()`` of the payload, were these tokens serialised here and sent.
    """

    layer: int
    prefix: int
    merge_map: Tensor
    sizes: Tensor
    gflops: float
    payload_bytes: int

    @property
    def tokens(self) -> int:
        """Tokens, prefix included."""
        return len(self.sizes)

    @property
    def unreduced(self) -> int:
        """Tokens that there would be without any reduction, prefix included."""
        return self.prefix + len(self.merge_map)

    @property
    def largest(self) -> int:
        """Patches in the largest token; 0 where no patch is left."""
        return int(self.sizes[self.prefix :].max()) if self.tokens > self.prefix else 0

    @property
    def dropped(self) -> int:
        """Patches that no token stands for any more."""
        return int((self.merge_map == DROPPED).sum())


@dataclass(frozen=True)
class Inspection:
    """One image seen through the edge of one operating point.

    Args:
        name: The operating point.
        pixels: (3, H, W) uint8, the image as the victim gets it.
        grid: Patch rows and columns.
        layers: The tokens after every edge block, in order.
        resolved: What calibration made of the operating point (``Defense.resolved``).

    Raises:
        PluginError: A layer does not have as many patches as the grid.
    """

    name: str
    pixels: Tensor
    grid: tuple[int, int]
    layers: tuple[LayerView, ...]
    resolved: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        patches = self.grid[0] * self.grid[1]
        for view in self.layers:
            if view.merge_map.shape != (patches,):
                raise PluginError(
                    f"block {view.layer + 1} maps {len(view.merge_map)} patches, the grid has {patches}",
                    where=f"operating point {self.name!r}",
                )
