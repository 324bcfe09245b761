"""The plain way to batch adaptive merging, as a baseline: pad every image to the longest and mask.

Runs the same threshold merging as the packed forward, on a timm ViT with class token, LayerScale or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention


@torch.no_grad()
def padded_forward(model: nn.Module, images: Tensor, thresholds: Sequence[float], *, compact: bool) -> Tensor:
    """Runs a timm ViT with threshold merging on padded tokens.

    Args:
        model: A timm VisionTransformer that pools its class token.
        images: (B, 3, H, W) normalised.
        thresholds: tau of each block; 1 never merges.
        compact: After every block, move each image's tokens to the front and cut to the longest of the batch; otherwise
            the batch keeps its full width and merged tokens are only masked.

    Returns:
        (B, classes) logits.
    """
    net: Any = model
    tokens = net.norm_pre(net.patch_drop(net._pos_embed(net.patch_embed(images))))
    sizes = torch.ones(tokens.shape[:2])
    alive = torch.ones(tokens.shape[:2], dtype=torch.bool)
    for block, tau in zip(net.blocks, thresholds, strict=True):
        attended, keys = _attend(block, tokens, sizes, alive)
        if tau < 1.0:
            attended, sizes, alive = _merge(attended, keys, sizes, alive, tau)
            if compact:
                attended, sizes, alive = _compacted(attended, sizes, alive)
        tokens = attended + block.ls2(block.mlp(block.norm2(attended)))
    logits: Tensor = net.forward_head(net.norm(tokens))
    return logits


def _attend(block: Any, tokens: Tensor, sizes: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Runs the attention half on padded tokens (B, L, D): tokens after the residual and unit keys (B, L, d)."""
    attention, (batch, length, _) = block.attn, tokens.shape
    qkv = attention.qkv(block.norm1(tokens)).view(batch, length, 3, attention.num_heads, attention.head_dim)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    bias = None
    if not bool(alive.all()) or bool((sizes != 1).any()):
        bias = sizes.log().masked_fill(~alive, -torch.inf)[:, None, None, :]
    context = scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2).flatten(2)
    return tokens + block.ls1(attention.proj(context)), normalize(key.mean(dim=1), dim=-1)


def _merge(tokens: Tensor, keys: Tensor, sizes: Tensor, alive: Tensor, tau: float) -> tuple[Tensor, Tensor, Tensor]:
    """Merges A tokens into B tokens above tau; the class token stands first and takes no part."""
    patch = alive.clone()
    patch[:, 0] = False
    rank = patch.long().cumsum(dim=1) - 1
    in_a, in_b = patch & (rank % 2 == 0), patch & (rank % 2 == 1)
    similarity = keys @ keys.transpose(1, 2)
    best, match = similarity.masked_fill(~in_b[:, None, :], -torch.inf).max(dim=2)
    merges = in_a & (best > tau)
    place = torch.arange(tokens.shape[1]).expand_as(match)
    target = torch.where(merges, match, place)
    new_sizes = torch.zeros_like(sizes).scatter_add(1, target, sizes * alive)
    weighted = tokens * (sizes * alive)[..., None]
    summed = torch.zeros_like(tokens).scatter_add(1, target[..., None].expand_as(tokens), weighted)
    return summed / new_sizes.clamp_min(1)[..., None], new_sizes.clamp_min(1), alive & ~merges


def _compacted(tokens: Tensor, sizes: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Moves each image's tokens to the front, in order, and cuts to the longest image."""
    longest = int(alive.sum(dim=1).max())
    order = torch.argsort((~alive).long(), dim=1, stable=True)[:, :longest]
    kept = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[2]))
    return kept, sizes.gather(1, order), alive.gather(1, order)
