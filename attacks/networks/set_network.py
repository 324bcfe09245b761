"""The network of the set decoder: learned 2-D queries read a set of tokens and paint patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacks.networks.layout import from_patches
from harness.contracts import Observation


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
        """Attends; ``bias`` (B, 1, 1, L) is minus infinity where a token is padding."""
        batch, count, width = queries.shape
        head = width // self.heads
        query = self.query(queries).view(batch, count, self.heads, head).transpose(1, 2) * head**-0.5
        key, value = self.key_value(tokens).view(len(tokens), -1, 2, self.heads, head).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(2, 3) + bias).softmax(dim=-1)
        mixed: Tensor = self.out((weights @ value).transpose(1, 2).reshape(batch, count, width))
        return mixed


class Layer(nn.Module):
    """One decoder layer: read from the set, mix with grid neighbours, think.

    Neighbours mix by a depthwise 3 x 3 convolution in place of self-attention: on a grid it does the same work at a
    fraction of the cost.

    Args:
        width: Channels.
        heads: Attention heads.
        grid: Rows and columns of queries.
    """

    def __init__(self, width: int, heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.norm_read, self.read = nn.LayerNorm(width), CrossAttention(width, heads)
        self.norm_mix, self.mix = nn.LayerNorm(width), nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm_think = nn.LayerNorm(width)
        self.think = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, queries: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        """Returns refined queries (B, N, C)."""
        queries = queries + self.read(self.norm_read(queries), tokens, bias)
        plane = self.norm_mix(queries).transpose(1, 2).reshape(len(queries), -1, *self.grid)
        queries = queries + self.mix(plane).flatten(2).transpose(1, 2)
        refined: Tensor = queries + self.think(self.norm_think(queries))
        return refined


class SetNetwork(nn.Module):
    """Maps a set of tokens, in any number and order, to an image.

    Args:
        token_width: D of the observed tokens.
        mean: (D,) of the token values.
        std: (D,) likewise.
        image_shape: (3, H, W).
        grid: Patch rows and columns; one query a patch.
        width: Channels.
        layers: Decoder layers.
        heads: Attention heads.
        prefix: Protected tokens at the start of every image, which get embeddings of their own.
    """

    def __init__(
        self,
        token_width: int,
        mean: Tensor,
        std: Tensor,
        image_shape: tuple[int, int, int],
        grid: tuple[int, int],
        *,
        width: int,
        layers: int,
        heads: int,
        prefix: int,
    ) -> None:
        super().__init__()
        self.grid, self.image_shape, self.prefix = grid, image_shape, prefix
        patch_values = 3 * (image_shape[1] // grid[0]) * (image_shape[2] // grid[1])
        self.mean = nn.Buffer(mean)
        self.std = nn.Buffer(std)
        self.project = nn.Sequential(nn.Linear(token_width, width), nn.GELU(), nn.Linear(width, width))
        self.size = nn.Sequential(nn.Linear(1, 32), nn.GELU(), nn.Linear(32, width))
        self.protected = nn.Parameter(torch.zeros(max(prefix, 1), width))
        self.queries = nn.Parameter(torch.randn(1, grid[0] * grid[1], width) * 0.5)
        self.layers = nn.ModuleList(Layer(width, heads, grid) for _ in range(layers))
        self.norm_tokens, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.paint = nn.Linear(width, patch_values)

    def forward(self, observations: Observation) -> Tensor:
        """Returns images (B, 3, H, W), not clamped."""
        batch = observations.as_batch()
        tokens = self.project((batch.tokens - self.mean) / self.std)
        tokens = tokens + self.size(batch.sizes.to(tokens.dtype).log()[:, None])
        padded, mask = batch.with_tokens(tokens).padded()
        if self.prefix:
            padded[:, : self.prefix] += self.protected.to(padded.dtype)
        padded = self.norm_tokens(padded)
        bias = torch.zeros_like(mask, dtype=padded.dtype).masked_fill_(~mask, -1e4)[:, None, None, :]
        queries = self.queries.expand(len(batch), -1, -1)
        for layer in self.layers:
            queries = layer(queries, padded, bias)
        patches = self.paint(self.norm_out(queries))
        return 0.5 + 0.5 * from_patches(patches, self.grid, *self.image_shape[1:])
