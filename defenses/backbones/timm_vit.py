"""Adapter for timm VisionTransformer: runs its own modules on packed ragged tokens, without patching the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention

from harness.errors import ConfigError
from harness.tokens import TokenBatch, packed_rows


class Attended(NamedTuple):
    """Result of the attention half of a block: tokens (T, D) after the residual, unit keys (T, K) float32."""

    tokens: Tensor
    keys: Tensor


def equal_lengths(lengths: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yields every distinct length with the packed rows (images, length) of the images that have it.

    Attention over such a group needs no padding, so that no image sees its batch mates, not even through a mask.
    """
    for length in torch.unique(lengths).tolist():
        images = (lengths == length).nonzero().squeeze(1)
        yield int(length), packed_rows(lengths, images).view(len(images), int(length))


class TimmViT:
    """A timm VisionTransformer with standard blocks, seen as embed / attend / mlp / finish.

    Args:
        model: The victim's network, in evaluation mode; read, never modified.

    Raises:
        ConfigError: The model is not one that this adapter runs exactly.
    """

    def __init__(self, model: nn.Module) -> None:
        reason = self._unsupported(model)
        if reason:
            raise ConfigError(
                f"unsupported victim {type(model).__name__}: {reason}",
                where="victim",
                mend="supported: timm VisionTransformer with standard blocks and class-token or average pooling",
            )
        self.model: Any = cast(Any, model)
        self.depth = len(self.model.blocks)
        self.prefix = int(self.model.num_prefix_tokens)
        self.width = int(self.model.embed_dim)
        rows, columns = self.model.patch_embed.grid_size
        self.grid = (int(rows), int(columns))
        self.pools_token = self.model.global_pool == "token"

    @staticmethod
    def _unsupported(model: nn.Module) -> str | None:
        if not isinstance(model, VisionTransformer):
            return "not a timm VisionTransformer"
        if any(type(block) is not Block for block in model.blocks):
            return f"{type(model.blocks[0]).__name__} blocks are not supported"
        if any(type(block.attn) is not Attention for block in model.blocks):
            return f"{type(model.blocks[0].attn).__name__} attention is not supported"
        if model.attn_pool is not None or model.global_pool not in {"token", "avg"}:
            return f"pooling {model.global_pool!r} is not supported"
        return None

    def embed(self, images: Tensor) -> TokenBatch:
        """Embeds normalised images (B, 3, H, W) into unreduced tokens."""
        model = self.model
        tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))
        return TokenBatch.from_uniform(tokens, self.prefix)

    def attend(self, layer: int, batch: TokenBatch, *, proportional: bool) -> Attended:
        """Runs the attention half of a block.

        Args:
            layer: Block number, from 0.
            batch: Packed tokens.
            proportional: Weigh each key by its size, adding log(size) to the attention logits (ToMe, section 3.3).
        """
        block = self.model.blocks[layer]
        attention = block.attn
        normed = block.norm1(batch.tokens)
        qkv = attention.qkv(normed).view(len(normed), 3, attention.num_heads, attention.head_dim)
        query, key, value = attention.q_norm(qkv[:, 0]), attention.k_norm(qkv[:, 1]), qkv[:, 2]
        merged = proportional and bool((batch.sizes != 1).any())
        context = torch.empty_like(value)
        for _, rows in equal_lengths(batch.lengths):
            q, k, v = (x[rows].transpose(1, 2) for x in (query, key, value))
            bias = batch.sizes[rows].to(query.dtype).log()[:, None, None, :] if merged else None
            context[rows] = scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)
        mixed = attention.norm(context.flatten(1))
        if attention.gate is not None:
            mixed = mixed * attention.gate(normed).sigmoid()
        tokens = batch.tokens + block.ls1(attention.proj(mixed))
        return Attended(tokens, normalize(key.float().mean(dim=1), dim=-1))

    def mlp(self, layer: int, tokens: Tensor) -> Tensor:
        """Runs the MLP half of a block on packed tokens (T, D)."""
        block = self.model.blocks[layer]
        result: Tensor = tokens + block.ls2(block.mlp(block.norm2(tokens)))
        return result

    def finish(self, batch: TokenBatch) -> Tensor:
        """Applies the final norm, pools and classifies: (B, classes).

        Average pooling weighs every token by its size (assumed: no paper states it), so that merging alone moves
        the mean of the patches as little as possible.
        """
        tokens = self.model.norm(batch.tokens)
        if self.pools_token:
            pooled = tokens[batch.offsets[:-1]]
        else:
            position = torch.arange(len(tokens), device=tokens.device) - batch.offsets[batch.image_index]
            use = torch.ones_like(position) if self.model.pool_include_prefix else (position >= self.prefix).long()
            weight = (batch.sizes * use).to(tokens.dtype)[:, None]
            sums = tokens.new_zeros(len(batch), tokens.shape[1]).index_add(0, batch.image_index, tokens * weight)
            total = tokens.new_zeros(len(batch), 1).index_add(0, batch.image_index, weight)
            pooled = sums / total.clamp_min(1)
        logits: Tensor = self.model.head(self.model.head_drop(self.model.fc_norm(pooled)))
        return logits
