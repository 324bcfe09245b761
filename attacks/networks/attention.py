"""Attention over padded sets of tokens, in plain matrix products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leakgauge.harness.errors import ConfigError

PADDING = -1e4
"""Attention bias of padding: as good as minus infinity, and finite where a whole row is padding."""


def check_heads(width: int, heads: int) -> None:
    """Checks that heads part the channels evenly.

    Raises:
        ConfigError: They do not.
    """
    if width % heads:
        fitting = -(-width // heads) * heads
        raise ConfigError(f"width = {width} is not a multiple of heads = {heads}", hint=f"write width: {fitting}")


def padding_bias(mask: Tensor) -> Tensor:
    """Returns (B, 1, L) to add to attention logits, from the mask (B, L) that is True where a token is real."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, PADDING)[:, None, :]


class CrossAttention(nn.Module):
    """Multi-head attention from queries (B, N, C) to a masked set (B, L, C), in plain matrix products.

    Not the fused kernel: on CPUs its backward pass takes several times as long.

    Args:
        width: C.
        heads: Attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        """Attends; ``bias`` (B, 1, 1, L) is very negative where a token is padding."""
        batch, count, width = queries.shape
        head = width // self.heads
        query = self.query(queries).view(batch, count, self.heads, head).transpose(1, 2) * head**-0.5
        key, value = self.key_value(tokens).view(len(tokens), -1, 2, self.heads, head).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(2, 3) + bias).softmax(dim=-1)
        mixed: Tensor = self.out((weights @ value).transpose(1, 2).reshape(batch, count, width))
        return mixed


class SelfAttentionLayer(nn.Module):
    """One encoder layer with normalisation first: tokens read one another, then each thinks.

    Args:
        width: C.
        heads: Attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_read, self.read = nn.LayerNorm(width), CrossAttention(width, heads)
        self.norm_think = nn.LayerNorm(width)
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """Returns tokens (B, L, C) after one layer; ``bias`` (B, 1, L) as ``padding_bias`` makes it."""
        normed = self.norm_read(tokens)
        tokens = tokens + self.read(normed, normed, bias[:, None])
        refined: Tensor = tokens + self.think(self.norm_think(tokens))
        return refined
