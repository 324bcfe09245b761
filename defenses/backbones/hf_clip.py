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

from defenses.backbones.backbone import Projected, size_weighted_mean
from defenses.backbones.hf_backbone import HfBackbone, first_tokens
from harness.tokens import TokenBatch


class HfClip(HfBackbone):
    """CLIPVisionModel, CLIPVisionModelWithProjection and CLIPForImageClassification.

    The bare model answers with its pooler output, the normed class token; with projection, with ``image_embeds``.
    """

    family: ClassVar[type[nn.Module]] = CLIPPreTrainedModel
    classes: ClassVar[tuple[type[nn.Module], ...]] = (
        CLIPVisionModel,
        CLIPVisionModelWithProjection,
        CLIPForImageClassification,
    )
    parts: ClassVar[tuple[str, ...]] = (
        "layer_norm1",
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.out_proj",
        "layer_norm2",
        "mlp",
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

    def project(self, layer: int, tokens: Tensor) -> Projected:
        """Returns the attention inputs of block ``layer`` for tokens (T, D)."""
        block = self.layers[layer]
        return self._heads(block.self_attn, block.layer_norm1(tokens))

    def scale(self, layer: int) -> float:
        """Returns the factor on the attention logits of a block."""
        return float(self.layers[layer].self_attn.scale)

    def output(self, layer: int, tokens: Tensor, context: Tensor, gate: Tensor | None) -> Tensor:
        """Projects attention results (T, H, d) and adds the residual: (T, D)."""
        result: Tensor = tokens + self.layers[layer].self_attn.out_proj(context.flatten(1))
        return result

    def mlp(self, layer: int, tokens: Tensor) -> Tensor:
        """Runs the MLP half of a block, residual included, on tokens (T, D)."""
        block = self.layers[layer]
        result: Tensor = tokens + block.mlp(block.layer_norm2(tokens))
        return result

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
