"""Adapter for timm VisionTransformer: runs its own modules on packed ragged tokens, without patching the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from timm.layers.attention import Attention
from timm.layers.attention_pool import AttentionPoolLatent
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn

from leakgauge.defenses.backbones.backbone import Backbone, Projected, dtype_of_weights, patch_rows, size_weighted_mean
from leakgauge.defenses.ragged.attention import equal_lengths
from leakgauge.harness.errors import VictimError
from leakgauge.harness.values.tokens import TokenBatch

SUPPORTED = (
    "timm VisionTransformer (ViT, DeiT and distilled, DeiT-3, AugReg, MAE, DINO, DINOv2, CLIP and SigLIP towers) with "
    "standard blocks and token, average, maximum or attention pooling"
)
_POOLING = ("token", "avg", "max", "avgmax", "map")


class TimmViT(Backbone):
    """A timm VisionTransformer.

    Args:
        model: The victim's network, in evaluation mode; read, never modified.

    Raises:
        VictimError: The model is not one that this adapter runs exactly.
    """

    def __init__(self, model: nn.Module) -> None:
        reason = self._unsupported(model)
        if reason:
            raise VictimError(
                f"unsupported victim {type(model).__name__}: {reason}", where="victim", hint=f"supported: {SUPPORTED}"
            )
        self.model: Any = cast(Any, model)
        self.depth = len(self.model.blocks)
        self.prefix = int(self.model.num_prefix_tokens)
        self.width = int(self.model.embed_dim)
        rows, columns = self.model.patch_embed.grid_size
        self.grid = (int(rows), int(columns))
        patch = self.model.patch_embed.patch_size
        self.image_size, self.dtype = (self.grid[0] * patch[0], self.grid[1] * patch[1]), dtype_of_weights(model)
        self.class_token = self.model.cls_token is not None
        self.pools_patches = self.model.global_pool != "token"
        self._distilled = isinstance(model, VisionTransformerDistilled)

    @staticmethod
    def accepts(model: nn.Module) -> bool:
        """Whether ``model`` is of this family; one with exotic parts is still refused, with the reason."""
        return isinstance(model, VisionTransformer)

    @staticmethod
    def _unsupported(model: nn.Module) -> str | None:  # noqa: PLR0911 - one line a reason
        if not isinstance(model, VisionTransformer):
            return "not a timm VisionTransformer"
        if type(model) not in {VisionTransformer, VisionTransformerDistilled}:
            return "this subclass of VisionTransformer is not known"
        odd = [block for block in model.blocks if type(block) not in {Block, ResPostBlock}]
        if odd:
            return f"{type(odd[0]).__name__} blocks are not supported"
        odd = [block.attn for block in model.blocks if type(block.attn) is not Attention]
        if odd:
            return f"{type(odd[0]).__name__} attention is not supported"
        if model.global_pool not in _POOLING:
            return f"pooling {model.global_pool!r} is not supported"
        pool = model.attn_pool
        if pool is not None and (type(pool) is not AttentionPoolLatent or pool.pos_embed is not None):
            return "attention pooling with position embeddings is not supported: merged tokens have no one position"
        return None

    def blocks(self) -> Sequence[nn.Module]:
        """Returns the model's own blocks."""
        return list(self.model.blocks)

    def embed(self, images: Tensor) -> TokenBatch:
        """Embeds normalised images (B, 3, H, W) into unreduced tokens."""
        model = self.model
        tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
        if tokens.shape[1] != self.prefix + self.grid[0] * self.grid[1]:
            raise VictimError(
                f"images of {images.shape[3]} x {images.shape[2]} px do not fill the {self.grid[1]} x {self.grid[0]} "
                "patches of the victim",
                where="victim",
                hint="build the model for the size of the images",
            )
        return TokenBatch.from_uniform(tokens, self.prefix)

    def project(self, layer: int, tokens: Tensor) -> Projected:
        """Returns the attention inputs of block ``layer`` for tokens (T, D)."""
        block = self.model.blocks[layer]
        attention = block.attn
        normed = block.norm1(tokens) if type(block) is Block else tokens
        qkv = attention.qkv(normed).view(len(normed), 3, attention.num_heads, attention.head_dim)
        gate = None if attention.gate is None else attention.gate(normed).sigmoid()
        return Projected(attention.q_norm(qkv[:, 0]), attention.k_norm(qkv[:, 1]), qkv[:, 2], gate)

    def scale(self, layer: int) -> float:
        """Returns the factor on the attention logits of a block."""
        return float(self.model.blocks[layer].attn.scale)

    def output(self, layer: int, context: Tensor, gate: Tensor | None) -> Tensor:
        """Projects attention results (T, H, d) to what the block adds to its tokens: (T, D)."""
        block = self.model.blocks[layer]
        mixed = block.attn.norm(context.flatten(1))
        mixed = block.attn.proj(mixed if gate is None else mixed * gate)
        result: Tensor = block.ls1(mixed) if type(block) is Block else block.norm1(mixed)
        return result

    def mlp(self, layer: int, tokens: Tensor) -> Tensor:
        """Returns what the MLP half of a block adds to its tokens (T, D)."""
        block = self.model.blocks[layer]
        if type(block) is Block:
            result: Tensor = block.ls2(block.mlp(block.norm2(tokens)))
        else:
            result = block.norm2(block.mlp(tokens))
        return result

    def finish(self, batch: TokenBatch) -> Tensor:
        """Applies the final norm, pools and classifies: (B, classes)."""
        model = self.model
        batch = batch.with_tokens(model.norm(batch.tokens))
        if self._distilled:
            # Each head reads its own token, and their logits are averaged (DeiT, section 3.3).
            first = batch.offsets[:-1]
            logits: Tensor = (model.head(batch.tokens[first]) + model.head_dist(batch.tokens[first + 1])) / 2
        else:
            logits = model.head(model.head_drop(model.fc_norm(self._pool(batch))))
        return logits

    def _pool(self, batch: TokenBatch) -> Tensor:
        """Pools normed tokens: (B, D)."""
        kind, with_prefix = self.model.global_pool, bool(self.model.pool_include_prefix)
        if kind == "token":
            return batch.tokens[batch.offsets[:-1]]
        if kind == "map":
            return self._attention_pool(batch, with_prefix=with_prefix)
        mean = size_weighted_mean(batch, with_prefix=with_prefix)
        if kind == "avg":
            return mean
        used = batch.tokens if with_prefix else batch.tokens.masked_fill(~patch_rows(batch)[:, None], -torch.inf)
        index = batch.image_index[:, None].expand_as(used)
        highest = torch.full_like(mean, -torch.inf).scatter_reduce(0, index, used, "amax")
        return highest if kind == "max" else 0.5 * (highest + mean)

    def _attention_pool(self, batch: TokenBatch, *, with_prefix: bool) -> Tensor:
        """Pools by the model's latent query; each token weighs as its size says, as in proportional attention."""
        parts, order = [], []
        for _, rows in equal_lengths(batch.lengths):
            own = rows if with_prefix else rows[:, self.prefix :]
            bias = batch.sizes[own].to(batch.tokens.dtype).log()[:, None, None, :]
            parts.append(self.model.attn_pool(batch.tokens[own], attn_mask=bias))
            order.append(batch.image_index[rows[:, 0]])
        pooled: Tensor = torch.cat(parts)[torch.argsort(torch.cat(order))]
        return pooled
