"""Adapter for ViT of transformers."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from transformers.models.vit.modeling_vit import ViTForImageClassification, ViTModel, ViTPreTrainedModel

from leakgauge.defenses.backbones.backbone import Projected
from leakgauge.defenses.backbones.hf_backbone import HfBackbone, first_tokens
from leakgauge.harness.values.tokens import TokenBatch


class HfViT(HfBackbone):
    """ViTModel and ViTForImageClassification.

    The bare model answers with its pooler's output; without a pooler, with the final state of its class token.
    """

    family: ClassVar[type[nn.Module]] = ViTPreTrainedModel
    classes: ClassVar[tuple[type[nn.Module], ...]] = (ViTModel, ViTForImageClassification)
    parts: ClassVar[tuple[str, ...]] = (
        "layernorm_before",
        "attention.q_proj",
        "attention.k_proj",
        "attention.v_proj",
        "attention.o_proj",
        "layernorm_after",
        "mlp",
    )

    def _tower(self) -> nn.Module:
        tower: nn.Module = self.model.vit if isinstance(self.model, ViTForImageClassification) else self.model
        return tower

    def _layers(self) -> nn.ModuleList:
        blocks: nn.ModuleList = self.tower.layers
        return blocks

    def project(self, layer: int, tokens: Tensor) -> Projected:
        """Returns the attention inputs of block ``layer`` for tokens (T, D)."""
        block = self.layers[layer]
        return self._heads(block.attention, block.layernorm_before(tokens))

    def scale(self, layer: int) -> float:
        """Returns the factor on the attention logits of a block."""
        return float(self.layers[layer].attention.scaling)

    def output(self, layer: int, context: Tensor, gate: Tensor | None) -> Tensor:
        """Projects attention results (T, H, d) to what the block adds to its tokens: (T, D)."""
        result: Tensor = self.layers[layer].attention.o_proj(context.flatten(1))
        return result

    def mlp(self, layer: int, tokens: Tensor) -> Tensor:
        """Returns what the MLP half of a block adds to its tokens (T, D)."""
        block = self.layers[layer]
        result: Tensor = block.mlp(block.layernorm_after(tokens))
        return result

    def finish(self, batch: TokenBatch) -> Tensor:
        """Returns logits (B, classes), or of the bare model the pooled class token (B, D)."""
        state: Tensor = self.tower.layernorm(first_tokens(batch))
        if isinstance(self.model, ViTForImageClassification):
            state = self.model.classifier(state)
        elif self.model.pooler is not None:
            state = self.model.pooler(state[:, None])  # it takes the first of a row of tokens
        return state
