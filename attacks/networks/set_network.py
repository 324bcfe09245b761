"""The network of the set decoder: find out where tokens belong, place them softly on the grid, refine, paint."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from leakgauge.attacks.networks.attention import CrossAttention, SelfAttentionLayer, padding_bias
from leakgauge.attacks.training.layout import from_patches
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.tokens import DROPPED, TokenBatch


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


RANK_WAVES = 8
"""Wave lengths in which the rank of a token among the others is told."""


class EncodedTokens(NamedTuple):
    """A padded set of tokens.

    Args:
        values: (B, L, D), standardised, zeros as padding.
        context: (B, L, C), each having read the others.
        bias: (B, 1, L) of the padding.
    """

    values: Tensor
    context: Tensor
    bias: Tensor


class Placed(NamedTuple):
    """Tokens on the grid.

    Args:
        tokens: The set.
        by_position: (B, N, D), for every grid position the token that it gets.
        logits: (B, N, L) how strongly each position claims each token; None where that was known.
    """

    tokens: EncodedTokens
    by_position: Tensor
    logits: Tensor | None = None


class PaintingNetwork(nn.Module):
    """What painting networks over a grid share: tokens read one another, decoder layers refine what was placed, paint.

    A linear skip paints the placed tokens: the skip alone is the ridge attack.

    Args:
        mean: (D,) of the observed token values.
        std: (D,) likewise.
        image_shape: (3, H, W).
        grid: Patch rows and columns; one position a patch.
        width: Channels of the decoder.
        layers: Decoder layers.
        heads: Attention heads of the decoder.
    """

    outer = ("size", "skip", "paint")
    """Layers that read sizes or paint pixels: not hidden, and so not for Muon."""

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
        self.value, self.position = nn.Linear(values, width), nn.Parameter(torch.zeros(1, positions, width))
        self.token, self.rank_waves = nn.Linear(values, width), nn.Linear(2 * RANK_WAVES, width, bias=False)
        self.encoder, self.norm_token = SelfAttentionLayer(width, heads), nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, heads, grid) for _ in range(layers))
        self.norm_out, self.paint = nn.LayerNorm(width), nn.Linear(width, pixels)
        self.skip = nn.Linear(values, pixels)
        # Sizes say nothing at first: where they are never seen in training they must not disturb.
        for linear in (self.size, self.paint):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def standardised(self, observations: Observation) -> TokenBatch:
        """Returns the tokens in units of standard deviations, with the embedding of their size added."""
        batch = observations.as_batch()
        values = (batch.tokens - self.mean) / self.std
        return batch.with_tokens(values + self.size(batch.sizes.to(values.dtype).log()[:, None]))

    def ranks(self, observations: Observation, length: int) -> Tensor:
        """Returns (B, L) the rank of every token, stretched to 0 ... N; protected tokens lie below 0."""
        count = (observations.lengths - observations.prefix).clamp_min(1).float()[:, None]
        rank = torch.arange(length, device=count.device)[None, :] - observations.prefix
        return (rank + 0.5) / count * (self.grid[0] * self.grid[1])

    def encode(self, observations: Observation) -> EncodedTokens:
        """Lets the tokens of each image read one another; their order enters only where it is seen."""
        values, mask = self.standardised(observations).padded()
        bias, hidden = padding_bias(mask), self.token(values)
        if observations.ordered:
            waves = math.pi / (2 * self.grid[0] * self.grid[1]) * torch.exp2(torch.arange(RANK_WAVES))
            angles = self.ranks(observations, values.shape[1])[..., None] * waves.to(values.device)
            hidden = hidden + self.rank_waves(torch.cat([angles.sin(), angles.cos()], dim=2))
        return EncodedTokens(values, self.norm_token(self.encoder(hidden, bias)), bias)

    def place(self, observations: Observation) -> Placed:
        """Lays the tokens on the grid."""
        raise NotImplementedError

    def decode(self, placed: Placed) -> Tensor:
        """Paints what was placed: (B, 3, H, W), not clamped."""
        hidden = self.value(placed.by_position) + self.position
        for layer in self.layers:
            hidden = layer(hidden, placed.tokens.context, placed.tokens.bias[:, None])
        patches = self.skip(placed.by_position) + self.paint(self.norm_out(hidden))
        return 0.5 + 0.5 * from_patches(patches, self.grid, *self.image_shape[1:])

    def forward(self, observations: Observation) -> Tensor:
        """Returns images (B, 3, H, W), not clamped."""
        return self.decode(self.place(observations))


class SetNetwork(PaintingNetwork):
    """Maps a set of tokens, in any number, to an image.

    A soft unmerge comes first: every grid position has a learned query, every token a key made from its content and
    from the other tokens, and cosine attention copies tokens to positions. Where the order is seen, attention also
    favours tokens of nearby rank, as reductions keep the order; where it is not, the network does not depend on it.

    Arguments are those of PaintingNetwork.
    """

    def __init__(
        self, mean: Tensor, std: Tensor, image_shape: tuple[int, int, int], grid: tuple[int, int], **size: int
    ) -> None:
        super().__init__(mean, std, image_shape, grid, **size)
        positions, width = grid[0] * grid[1], size["width"]
        self.key = nn.Linear(width, width)
        self.query = nn.Parameter(torch.randn(positions, width))
        self.sharpness = nn.Parameter(torch.tensor(math.log(10.0)))
        # Strength of the favour is exp(nearness[0] + nearness[1] * log(n / N)): it decides for unreduced payloads, and
        # for merged ones, whose ranks say little, it must not stand against the content.
        self.nearness = nn.Parameter(torch.tensor([math.log(4.0), 3.0]))
        self.protected = nn.Parameter(torch.tensor(-3.0))

    def _near_rank(self, observations: Observation, length: int) -> Tensor:
        """Returns (B, N, L) favour of tokens whose rank, stretched to N, is near a position."""
        positions = self.grid[0] * self.grid[1]
        count = (observations.lengths - observations.prefix).clamp_min(1).float()[:, None, None]
        strength = (self.nearness[0] + self.nearness[1] * (count / positions).log()).exp()
        rank = self.ranks(observations, length)[:, None, :]
        distance = torch.arange(positions, device=rank.device)[None, :, None] + 0.5 - rank
        # Heavy tails: a squared distance would rule out far sources for good.
        return torch.where(rank < 0, self.protected, -strength * torch.log1p(8.0 * distance.square()))

    def queries(self, tokens: EncodedTokens) -> Tensor:
        """Returns what the positions ask for, (N, C), or (B, N, C) where they look at the tokens first."""
        return self.query

    def place(self, observations: Observation) -> Placed:
        """Copies tokens softly to the grid positions that they seem to come from."""
        tokens = self.encode(observations)
        keys, queries = normalize(self.key(tokens.context), dim=-1), normalize(self.queries(tokens), dim=-1)
        logits = (queries @ keys.transpose(1, 2)) * self.sharpness.exp() + tokens.bias
        if observations.ordered:
            logits = logits + self._near_rank(observations, tokens.values.shape[1])
        return Placed(tokens, logits.softmax(dim=-1) @ tokens.values, logits)

    def supervised(self, observations: Observation) -> tuple[Tensor, Tensor]:
        """Returns images as ``forward`` does, and how badly the merge map was guessed.

        Args:
            observations: B images with their merge map, which is compared with and not used.

        Returns:
            Images (B, 3, H, W), and the mean cross-entropy () over patches of the token that each went to.
        """
        placed, merge_map = self.place(observations), observations.merge_map
        assert placed.logits is not None
        assert merge_map is not None
        miss = cross_entropy(placed.logits.float().flatten(0, 1), merge_map.flatten(), ignore_index=DROPPED)
        return self.decode(placed), miss


class SeekingNetwork(SetNetwork):
    """Finds out where tokens belong, and does little else: neighbours agree on what they claim, and paint plainly.

    Every position reads the set and its neighbours before it claims a token; a linear map paints what it gets.

    Args:
        mean: (D,) of the observed token values.
        std: (D,) likewise.
        image_shape: (3, H, W).
        grid: Patch rows and columns; one position a patch.
        width: Channels.
        layers: Layers in which positions read the set.
        heads: Attention heads.
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
        super().__init__(mean, std, image_shape, grid, width=width, layers=0, heads=heads)
        self.readers, self.asked = nn.ModuleList(Layer(width, heads, grid) for _ in range(layers)), nn.LayerNorm(width)

    def queries(self, tokens: EncodedTokens) -> Tensor:
        """Returns what the positions ask for once they have looked, (B, N, C)."""
        asking = self.query.expand(len(tokens.context), -1, -1)
        for layer in self.readers:
            asking = layer(asking, tokens.context, tokens.bias[:, None])
        normed: Tensor = self.asked(asking)
        return normed


class MappedNetwork(PaintingNetwork):
    """Paints tokens whose source patches are known: every token is copied to all of them.

    Arguments are those of PaintingNetwork.
    """

    def __init__(
        self, mean: Tensor, std: Tensor, image_shape: tuple[int, int, int], grid: tuple[int, int], **size: int
    ) -> None:
        super().__init__(mean, std, image_shape, grid, **size)
        self.absent = nn.Parameter(torch.zeros(len(mean)))

    def place(self, observations: Observation) -> Placed:
        """Copies tokens to their source patches; a learned value stands where a patch was dropped."""
        batch = self.standardised(observations)
        dropped = (batch.merge_map == DROPPED)[..., None]
        return Placed(self.encode(observations), torch.where(dropped, self.absent, batch.unmerge()))
