"""Adapter for the image tower of CLIP of transformers."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from transformers.models.clip.modeling_clip import (
    CLIPForImageClassification,
    CLIPPreTrainedModel,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from leakgauge.defenses.backbones.backbone import size_weighted_mean
from leakgauge.defenses.backbones.hf_backbone import first_tokens
from leakgauge.defenses.backbones.hf_tower import HfTower
from leakgauge.harness.values.tokens import TokenBatch


class HfClip(HfTower):
    """CLIPVisionModel, CLIPVisionModelWithProjection and CLIPForImageClassification.

    The bare model answers with its pooler output, the normed class token; with projection, with ``image_embeds``.
    """

    family: ClassVar[type[nn.Module]] = CLIPPreTrainedModel
    classes: ClassVar[tuple[type[nn.Module], ...]] = (
        CLIPVisionModel,
        CLIPVisionModelWithProjection,
        CLIPForImageClassification,
    )

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.pools_patches = isinstance(model, CLIPForImageClassification)

    def _tower(self) -> nn.Module:
        tower: nn.Module = self.model if isinstance(self.model, CLIPVisionModel) else self.model.vision_model
        return tower

    def _embedding(self, pixels: Tensor) -> Tensor:
        tokens: Tensor = self.tower.pre_layrnorm(self.tower.embeddings(pixels))
        return tokens

    def finish(self, batch: TokenBatch) -> Tensor:
        """Returns logits (B, classes), the projected (B, P) or the pooled class token (B, D)."""
        if isinstance(self.model, CLIPForImageClassification):
            # This head takes the mean of the patches as they leave the last block, without the final norm.
            logits: Tensor = self.model.classifier(size_weighted_mean(batch, with_prefix=False))
            return logits
        state: Tensor = self.tower.post_layernorm(first_tokens(batch))
        if isinstance(self.model, CLIPVisionModelWithProjection):
            state = self.model.visual_projection(state)
        return state
