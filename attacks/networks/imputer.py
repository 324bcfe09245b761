"""Fills empty grid positions: a masked autoencoder on token values."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from leakgauge.attacks.networks.attention import SelfAttentionLayer
from leakgauge.harness.values.observation import Observation


class FeatureImputer(nn.Module):
    """Predicts the tokens of empty positions from those that are there.

    SARA's masked autoencoder in feature space (Leggio et al. 2026), encoder only: a learned token stands on empty
    positions, and every position reads all others.

    Args:
        mean: (D,) of the token values.
        std: (D,) likewise.
        positions: N.
        width: Channels.
        layers: Encoder layers.
        heads: Attention heads.
    """

    def __init__(self, mean: Tensor, std: Tensor, positions: int, *, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.mean, self.std = nn.Buffer(mean), nn.Buffer(std)
        self.embed = nn.Linear(len(mean), width)
        self.empty = nn.Parameter(torch.zeros(width))
        self.position = nn.Parameter(0.02 * torch.randn(1, positions, width))
        self.layers = nn.ModuleList(SelfAttentionLayer(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, len(mean))
        # What a position holds on average is where to start.
        self.usual = nn.Parameter(torch.zeros(1, positions, len(mean)))

    def standardised(self, tokens: Tensor, filled: Tensor) -> Tensor:
        """Returns predictions (B, N, D) in units of standard deviations.

        Args:
            tokens: (B, N, D) on the grid; what lies on empty positions does not matter.
            filled: (B, N), False where a position is empty.
        """
        known = self.embed((tokens - self.mean) / self.std)
        hidden = torch.where(filled[..., None], known, self.empty) + self.position
        bias = hidden.new_zeros(len(tokens), 1, tokens.shape[1])
        for layer in self.layers:
            hidden = layer(hidden, bias)
        predicted: Tensor = self.head(self.norm(hidden)) + self.usual
        return predicted

    def forward(self, tokens: Tensor, filled: Tensor) -> Tensor:
        """Returns tokens (B, N, D) with empty positions filled; others keep their values."""
        return torch.where(filled[..., None], tokens, self.standardised(tokens, filled) * self.std + self.mean)


def imputation_loss(
    imputer: nn.Module, observed: Observation, masked: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Returns the squared error () on positions whose tokens were hidden.

    Args:
        imputer: A FeatureImputer.
        observed: Unreduced tokens with their merge map.
        masked: Smallest and largest share of positions hidden; drawn for every image.
        generator: Draws the shares and the positions.
    """
    assert isinstance(imputer, FeatureImputer)
    tokens = observed.as_batch().unmerge()
    low, high = masked
    share = low + (high - low) * torch.rand(len(tokens), 1, generator=generator)
    filled = (torch.rand(tokens.shape[:2], generator=generator) >= share).to(tokens.device)
    error = mse_loss(
        imputer.standardised(tokens, filled).float(), (tokens - imputer.mean) / imputer.std, reduction="none"
    )
    hidden = (~filled)[..., None].float()
    return (error * hidden).sum() / (hidden.sum() * error.shape[2]).clamp_min(1.0)
