"""Adapter for the image tower of SigLIP of transformers."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers.models.siglip.modeling_siglip import (
    SiglipForImageClassification,
    SiglipPreTrainedModel,
    SiglipVisionModel,
)

from leakgauge.defenses.backbones.backbone import size_weighted_mean
from leakgauge.defenses.backbones.hf_tower import HfTower
from leakgauge.defenses.ragged.attention import equal_lengths
from leakgauge.harness.values.tokens import TokenBatch


class HfSiglip(HfTower):
    """SiglipVisionModel and SiglipForImageClassification. There is no class token.

    The bare model answers with its pooler output, from its attention-pooling head. One without that head is refused: it
    has no class token either, and so no one answer.
    """

    family: ClassVar[type[nn.Module]] = SiglipPreTrainedModel
    classes: ClassVar[tuple[type[nn.Module], ...]] = (SiglipVisionModel, SiglipForImageClassification)

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.prefix, self.class_token, self.pools_patches = 0, False, True
        self._check_head()

    def _check_head(self) -> None:
        if self.model is self.tower and not self.tower.use_head:
            raise self._refusal("without its head it has no one output (`vision_use_head` is false)")

    def _tower(self) -> nn.Module:
        tower: nn.Module = self.model if isinstance(self.model, SiglipVisionModel) else self.model.vision_model
        return tower

    def finish(self, batch: TokenBatch) -> Tensor:
        """Returns logits (B, classes), or of the bare model the pooled tokens (B, D)."""
        batch = batch.with_tokens(self.tower.post_layernorm(batch.tokens))
        if self.model is self.tower:
            return self._attention_pool(batch)
        logits: Tensor = self.model.classifier(size_weighted_mean(batch, with_prefix=False))
        return logits

    def _attention_pool(self, batch: TokenBatch) -> Tensor:
        """Pools by the head's probe; each token weighs as its size says, as in proportional attention.

        The head's own forward takes no mask, so its modules are called one by one. Images of one length share a call.
        """
        head = self.tower.head
        parts, order = [], []
        for length, rows in equal_lengths(batch.lengths):
            # nn.MultiheadAttention takes a mask for each image and head: (images * heads, 1, length).
            bias = batch.sizes[rows].to(batch.tokens.dtype).log()[:, None]
            bias = bias.repeat_interleave(head.attention.num_heads, dim=0)
            tokens = batch.tokens[rows.flatten()].view(len(rows), length, -1)
            probe = head.probe.expand(len(rows), -1, -1)
            pooled = head.attention(probe, tokens, tokens, attn_mask=bias, need_weights=False)[0]
            parts.append((pooled + head.mlp(head.layernorm(pooled)))[:, 0])
            order.append(batch.image_index[rows[:, 0]])
        return torch.cat(parts)[torch.argsort(torch.cat(order))]
