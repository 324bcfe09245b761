"""A victim cut in two, and how its blocks compute: what edge and server of one pipeline share."""

from __future__ import annotations

import torch

from leakgauge.defenses.backbones.backbone import Backbone
from leakgauge.defenses.ragged.embeddings import Embeddings
from leakgauge.defenses.ragged.flops import FlopTable
from leakgauge.defenses.ragged.forward import Precision, dtype_of
from leakgauge.harness.contracts.victim import Victim


class SplitVictim:
    """A victim whose first ``cut`` blocks are the edge's, the others the server's.

    Args:
        victim: The victim, on ``device``.
        backbone: Its adapter.
        device: Where to compute.
        cut: Blocks on the edge.
        precision: Number type in which the blocks compute; below float32 by autocast.
        proportional: Proportional attention.

    Attributes:
        embeddings: Embeds its images.
        flop_table: Counts the FLOPs of its parts.
    """

    def __init__(
        self,
        victim: Victim,
        backbone: Backbone,
        device: torch.device,
        cut: int,
        precision: Precision,
        proportional: bool,
    ) -> None:
        self.victim, self.backbone, self.device = victim, backbone, device
        self.cut, self.proportional = cut, proportional
        self._dtype = dtype_of(precision, device)
        self.embeddings = Embeddings(backbone, victim, device)
        self.flop_table = FlopTable(backbone, victim, device)

    @property
    def server_blocks(self) -> range:
        """The blocks after the cut."""
        return range(self.cut, self.backbone.depth)

    def autocast(self) -> torch.autocast:
        """Returns the context in which the blocks compute."""
        return torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32)

    def needs_sizes(self, cut: int) -> bool:
        """Returns whether a server after ``cut`` blocks reads the sizes of merged tokens."""
        return (cut < self.backbone.depth and self.proportional) or self.backbone.pools_patches

    def share(self, other: SplitVictim) -> None:
        """Takes over what another split of the same victim has embedded and counted, and what it will."""
        self.embeddings = other.embeddings.keep()
        self.flop_table.share(other.flop_table)
