"""The network of the set decoder: find out where tokens belong, place them softly on the grid, refine, paint."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from attacks.networks.layout import from_patches
from harness.observation import Observation


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


class Placed(NamedTuple):
    """Standardised tokens (B, L, D) with zeros as padding, the mask's bias (B, 1, L), tokens by position (B, N, D)."""

    tokens: Tensor
    bias: Tensor
    by_position: Tensor


class SetNetwork(nn.Module):
    """Maps a set of tokens, in any number, to an image.

    A soft unmerge comes first: every grid position has a learned query, every token a key made from its content, and
    cosine attention copies tokens to positions. Where the order is seen, attention also favours tokens of nearby
    rank, as reductions keep the order; where it is not, the network does not depend on the order. Decoder layers then
    refine what was placed, and a linear skip paints it: the skip alone is the ridge attack.

    Args:
        mean: (D,) of the observed token values.
        std: (D,) likewise.
        image_shape: (3, H, W).
        grid: Patch rows and columns; one position a patch.
        width: Channels of the decoder.
        layers: Decoder layers.
        heads: Attention heads of the decoder.
    """

    def __init__(
        self,
        mean: Tensor,
        std: Tensor,
        image_shape: tuple[int, int, int],
        grid: tuple[int, int],
        *,
        width: int,
        layers: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.grid, self.image_shape = grid, image_shape
        values, positions = len(mean), grid[0] * grid[1]
        pixels = 3 * (image_shape[1] // grid[0]) * (image_shape[2] // grid[1])
        self.mean, self.std = nn.Buffer(mean), nn.Buffer(std)
        self.size = nn.Linear(1, values)
        self.key = nn.Sequential(nn.Linear(values, width), nn.GELU(), nn.Linear(width, width))
        self.query = nn.Parameter(torch.randn(positions, width))
        self.sharpness = nn.Parameter(torch.tensor(math.log(10.0)))
        # Favour of near ranks: exp(rank[0] + rank[1] * log(n / N)) per squared distance; sharp for unreduced payloads.
        self.rank = nn.Parameter(torch.tensor([2.0, 3.0]))
        self.protected = nn.Parameter(torch.tensor(-3.0))
        self.value, self.position = nn.Linear(values, width), nn.Parameter(torch.zeros(1, positions, width))
        self.token, self.norm_token = nn.Linear(values, width), nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, heads, grid) for _ in range(layers))
        self.norm_out, self.paint = nn.LayerNorm(width), nn.Linear(width, pixels)
        self.skip = nn.Linear(values, pixels)
        nn.init.zeros_(self.paint.weight)

    def _near_rank(self, observations: Observation, length: int) -> Tensor:
        """Returns (B, N, L) favour of tokens whose rank, stretched to N, is near a position."""
        positions = self.grid[0] * self.grid[1]
        device, prefix = self.query.device, observations.prefix
        count = (observations.lengths - prefix).clamp_min(1).float()[:, None, None]
        rank = torch.arange(length, device=device)[None, None, :] - prefix
        place = torch.arange(positions, device=device)[None, :, None] + 0.5
        distance = place - (rank + 0.5) / count * positions
        steepness = (self.rank[0] + self.rank[1] * (count / positions).log()).exp()
        return torch.where(rank < 0, self.protected, -steepness * distance.square())

    def place(self, observations: Observation) -> Placed:
        """Copies tokens softly to the grid positions that they seem to come from."""
        batch = observations.as_batch()
        values = (batch.tokens - self.mean) / self.std
        values = values + self.size(batch.sizes.to(values.dtype).log()[:, None])
        tokens, mask = batch.with_tokens(values).padded()
        bias = torch.zeros(mask.shape, device=tokens.device).masked_fill_(~mask, -1e4)[:, None, :]
        keys, queries = normalize(self.key(tokens), dim=-1), normalize(self.query, dim=-1)
        logits = (queries @ keys.transpose(1, 2)) * self.sharpness.exp() + bias
        if observations.ordered:
            logits = logits + self._near_rank(observations, tokens.shape[1])
        return Placed(tokens, bias, logits.softmax(dim=-1) @ tokens)

    def forward(self, observations: Observation) -> Tensor:
        """Returns images (B, 3, H, W), not clamped."""
        tokens, bias, by_position = self.place(observations)
        hidden = self.value(by_position) + self.position
        context = self.norm_token(self.token(tokens))
        for layer in self.layers:
            hidden = layer(hidden, context, bias[:, None])
        patches = self.skip(by_position) + self.paint(self.norm_out(hidden))
        return 0.5 + 0.5 * from_patches(patches, self.grid, *self.image_shape[1:])
