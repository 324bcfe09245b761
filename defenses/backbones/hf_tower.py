"""The blocks that the image towers of CLIP and SigLIP share."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from leakgauge.defenses.backbones.backbone import Projected
from leakgauge.defenses.backbones.hf_backbone import HfBackbone


class HfTower(HfBackbone):
    """A tower of pre-norm blocks with the module names of CLIP; subclasses know how its tokens are pooled."""

    parts: ClassVar[tuple[str, ...]] = (
        "layer_norm1",
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.out_proj",
        "layer_norm2",
        "mlp",
    )

    def project(self, layer: int, tokens: Tensor) -> Projected:
        """Returns the attention inputs of block ``layer`` for tokens (T, D)."""
        block = self.layers[layer]
        return self._heads(block.self_attn, block.layer_norm1(tokens))

    def scale(self, layer: int) -> float:
        """Returns the factor on the attention logits of a block."""
        return float(self.layers[layer].self_attn.scale)

    def output(self, layer: int, context: Tensor, gate: Tensor | None) -> Tensor:
        """Projects attention results (T, H, d) to what the block adds to its tokens: (T, D)."""
        result: Tensor = self.layers[layer].self_attn.out_proj(context.flatten(1))
        return result

    def mlp(self, layer: int, tokens: Tensor) -> Tensor:
        """Returns what the MLP half of a block adds to its tokens (T, D)."""
        block = self.layers[layer]
        result: Tensor = block.mlp(block.layer_norm2(tokens))
        return result
