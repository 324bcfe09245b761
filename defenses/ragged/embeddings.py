"""Embedded images, kept in memory where the same ones are sent many times over."""

from __future__ import annotations

import torch

from leakgauge.defenses.backbones.backbone import Backbone
from leakgauge.defenses.ragged.forward import embed
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.tokens import TokenBatch


class Embeddings:
    """Embeds images for the edge; nothing is kept until ``keep`` says so.

    A run keeps none: what a defense holds an attack might reach.

    Args:
        backbone: The model.
        victim: The victim, which normalises images.
        device: Where to compute, and to keep.
    """

    def __init__(self, backbone: Backbone, victim: Victim, device: torch.device) -> None:
        self._backbone, self._victim, self._device = backbone, victim, device
        self._kept: dict[str, TokenBatch] | None = None

    def keep(self) -> Embeddings:
        """Keeps all that is embedded from now on: 4 bytes a channel and token, without limit. Returns itself."""
        self._kept = {} if self._kept is None else self._kept
        return self

    def of(self, images: ImageSet) -> TokenBatch:
        """Returns the embedded images, not to be written into.

        One image alone is always embedded: that is how costs are measured.
        """
        if self._kept is None or len(images) == 1:
            return embed(self._backbone, self._victim, images, self._device)
        key = "|".join(images.ids)
        if key not in self._kept:
            self._kept[key] = embed(self._backbone, self._victim, images, self._device)
        return self._kept[key]
