"""Networks of the query-free attacker: an edge of its own, and a judge of how much its tokens look like seen ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.parametrizations import spectral_norm

from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.tokens import offsets_of

WAVES = 4


class SubstituteEncoder(nn.Module):
    """A small transformer from images to one token a patch, in the place of the edge that cannot be reached.

    Args:
        image_shape: (3, H, W).
        grid: Patch rows and columns, N in all.
        values: Values a token, D.
        width: Channels.
        layers: Transformer layers.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], grid: tuple[int, int], values: int, *, width: int, layers: int
    ) -> None:
        super().__init__()
        patch = (image_shape[1] // grid[0], image_shape[2] // grid[1])
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn(1, grid[0] * grid[1], width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, values)

    def forward(self, images: Tensor) -> Tensor:
        """Returns standardised tokens (B, N, D) of images (B, 3, H, W) in [0, 1]."""
        hidden = self.patches(2.0 * images - 1.0).flatten(2).transpose(1, 2) + self.position
        for layer in self.layers:
            hidden = layer(hidden)
        tokens: Tensor = self.out(self.norm(hidden))
        return tokens


def merged_like(tokens: Tensor, lengths: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Merges tokens down to given counts, each into the most similar of those that stay: a guess at any reduction.

    Args:
        tokens: (B, N, D).
        lengths: (B,) tokens to be left, 1 to N.
        generator: Draws which tokens stay.

    Returns:
        Packed tokens (T, D) in the order of the patches, with gradients, and their sizes (T,).
    """
    images, patches, _ = tokens.shape
    rank = torch.rand(images, patches, generator=generator).argsort(dim=1).argsort(dim=1).to(tokens.device)
    stays = rank < lengths.to(tokens.device)[:, None]
    with torch.no_grad():
        unit = normalize(tokens, dim=2)
        likeness = (unit @ unit.transpose(1, 2)).masked_fill(~stays[:, None, :], -torch.inf)
        target = likeness.argmax(dim=2)
        own = torch.arange(patches, device=tokens.device)
        target = torch.where(stays, own, target)
        share = torch.zeros(images, patches, patches, device=tokens.device)
        share.scatter_(1, target[:, None, :], 1.0)
        sizes = share.sum(dim=2)
    pooled = (share @ tokens) / sizes.clamp_min(1.0)[:, :, None]
    return pooled[stays], sizes[stays].long()


def described(observations: Observation, standardised: Tensor) -> Tensor:
    """Returns packed tokens (T, D) with what else is seen: the rank where there is order, the size where sent."""
    columns = [standardised]
    lengths = observations.lengths
    if observations.ordered:
        first = torch.repeat_interleave(offsets_of(lengths)[:-1], lengths)
        rank = torch.arange(len(standardised), device=lengths.device) - first
        place = (rank + 0.5) / torch.repeat_interleave(lengths, lengths)
        phase = place[:, None] * torch.pi * 2.0 ** torch.arange(WAVES, device=lengths.device)
        columns += [phase.sin(), phase.cos()]
    if observations.sizes is not None:
        columns.append(observations.sizes.to(standardised.dtype).log()[:, None])
    return torch.cat(columns, dim=1)


class TokenJudge(nn.Module):
    """Scores how much a token looks like those observed.

    Args:
        values: Columns of a described token.
        width: Hidden channels.
    """

    def __init__(self, values: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            spectral_norm(nn.Linear(values, width)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(width, width)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(width, 1)),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns scores (T,) of described tokens (T, columns); high for observed ones."""
        scores: Tensor = self.body(tokens).squeeze(1)
        return scores


def mmd(one: Tensor, other: Tensor) -> Tensor:
    """Returns the squared maximum mean discrepancy of samples (n, D) and (m, D) (Gretton et al., JMLR 2012, eq. 5).

    Gaussian kernels of half, once and twice the mean squared distance; the biased estimate, which is never negative.
    """
    both = torch.cat([one, other])
    squared = (both[:, None, :] - both[None, :, :]).square().sum(dim=2) if len(both) <= 128 else _squared(both)
    scale = squared.detach().mean().clamp_min(1e-6)
    kernel = torch.stack([torch.exp(-squared / (factor * scale)) for factor in (0.5, 1.0, 2.0)]).mean(dim=0)
    n = len(one)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2.0 * kernel[:n, n:].mean()


def _squared(points: Tensor) -> Tensor:
    """Returns squared distances (n, n) by inner products, in place of n x n x D differences."""
    norms = points.square().sum(dim=1)
    return (norms[:, None] + norms[None, :] - 2.0 * points @ points.T).clamp_min(0.0)
