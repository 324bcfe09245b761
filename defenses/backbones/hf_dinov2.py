"""Adapter for DINOv2 of transformers, with and without registers."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers.models.dinov2.modeling_dinov2 import (
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2PreTrainedModel,
)
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import (
    Dinov2WithRegistersForImageClassification,
    Dinov2WithRegistersModel,
    Dinov2WithRegistersPreTrainedModel,
)

from leakgauge.defenses.backbones.backbone import Projected, size_weighted_mean
from leakgauge.defenses.backbones.hf_backbone import HfBackbone, first_tokens
from leakgauge.harness.values.tokens import TokenBatch


class HfDinov2(HfBackbone):
    """Dinov2Model and Dinov2ForImageClassification.

    The bare model answers with the final state of its class token, which it calls its pooler output.
    """

    family: ClassVar[type[nn.Module]] = Dinov2PreTrainedModel
    classes: ClassVar[tuple[type[nn.Module], ...]] = (Dinov2Model, Dinov2ForImageClassification)
    parts: ClassVar[tuple[str, ...]] = (
        "norm1",
        "attention.q_proj",
        "attention.k_proj",
        "attention.v_proj",
        "attention.o_proj",
        "layer_scale1",
        "norm2",
        "mlp",
        "layer_scale2",
    )

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.prefix = 1 + int(getattr(self.tower.config, "num_register_tokens", 0))
        self.pools_patches = self.model is not self.tower

    def _tower(self) -> nn.Module:
        tower: nn.Module = self.model.dinov2 if isinstance(self.model, Dinov2ForImageClassification) else self.model
        return tower

    def _layers(self) -> nn.ModuleList:
        blocks: nn.ModuleList = self.tower.encoder.layer
        return blocks

    def project(self, layer: int, tokens: Tensor) -> Projected:
        """Returns the attention inputs of block ``layer`` for tokens (T, D)."""
        block = self.layers[layer]
        return self._heads(block.attention, block.norm1(tokens))

    def scale(self, layer: int) -> float:
        """Returns the factor on the attention logits of a block."""
        return float(self.layers[layer].attention.scaling)

    def output(self, layer: int, context: Tensor, gate: Tensor | None) -> Tensor:
        """Projects attention results (T, H, d) to what the block adds to its tokens: (T, D)."""
        block = self.layers[layer]
        result: Tensor = block.layer_scale1(block.attention.o_proj(context.flatten(1)))
        return result

    def mlp(self, layer: int, tokens: Tensor) -> Tensor:
        """Returns what the MLP half of a block, plain or SwiGLU, adds to its tokens (T, D)."""
        block = self.layers[layer]
        result: Tensor = block.layer_scale2(block.mlp(block.norm2(tokens)))
        return result

    def finish(self, batch: TokenBatch) -> Tensor:
        """Returns logits (B, classes), or of the bare model the class token (B, D)."""
        batch = batch.with_tokens(self.tower.layernorm(batch.tokens))
        state = first_tokens(batch)
        if self.model is not self.tower:
            # The head reads the class token beside the mean of the patches; registers are left out.
            state = self.model.classifier(torch.cat([state, size_weighted_mean(batch, with_prefix=False)], dim=1))
        return state


class HfDinov2WithRegisters(HfDinov2):
    """Dinov2WithRegistersModel and Dinov2WithRegistersForImageClassification, which differ in name only."""

    family: ClassVar[type[nn.Module]] = Dinov2WithRegistersPreTrainedModel
    classes: ClassVar[tuple[type[nn.Module], ...]] = (
        Dinov2WithRegistersModel,
        Dinov2WithRegistersForImageClassification,
    )

    def _tower(self) -> nn.Module:
        headed = isinstance(self.model, Dinov2WithRegistersForImageClassification)
        tower: nn.Module = self.model.dinov2_with_registers if headed else self.model
        return tower
