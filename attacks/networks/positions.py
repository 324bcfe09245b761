"""Where single tokens come from: a predictor over grid positions, and laying tokens on the grid by its word."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from leakgauge.attacks.networks.attention import SelfAttentionLayer, padding_bias
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.tokens import DROPPED

Assignment = Literal["argmax", "hungarian"]


class PositionPredictor(nn.Module):
    """Says of every token of a set which grid position it came from; does not depend on their order.

    SARA's token position predictor (Leggio et al. 2026): linear embedding, encoder layers without position embedding,
    softmax over positions. One class more stands for protected tokens, which come from none.

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
        self.positions = positions
        self.mean, self.std = nn.Buffer(mean), nn.Buffer(std)
        self.embed = nn.Linear(len(mean), width)
        self.layers = nn.ModuleList(SelfAttentionLayer(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, positions + 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Returns logits (B, L, N + 1) for tokens (B, L, D), real where the mask (B, L) is True."""
        hidden, bias = self.embed((tokens - self.mean) / self.std), padding_bias(mask)
        for layer in self.layers:
            hidden = layer(hidden, bias)
        logits: Tensor = self.head(self.norm(hidden))
        return logits


def source_positions(observations: Observation) -> Tensor:
    """Returns (B, L) the position that each token of an unreduced payload came from; N for protected tokens."""
    merge_map = observations.merge_map
    assert merge_map is not None
    images, positions = merge_map.shape
    own = torch.full((images, int(observations.lengths.max())), positions, device=merge_map.device)
    image, position = (merge_map != DROPPED).nonzero(as_tuple=True)
    own[image, merge_map[image, position]] = position
    return own


def position_loss(predictor: nn.Module, observed: Observation, least_kept: float, generator: torch.Generator) -> Tensor:
    """Returns the cross-entropy () of positions, with a random share of the tokens shown.

    The paper shows all tokens. A received payload has fewer, and reading fewer neighbours must not confuse.

    Args:
        predictor: A PositionPredictor.
        observed: Unreduced tokens with their merge map.
        least_kept: Smallest share of the tokens of an image that is shown; 1 shows all.
        generator: Draws the share and the tokens.
    """
    tokens, mask = observed.as_batch().padded()
    target = source_positions(observed)
    kept = max(1, round(tokens.shape[1] * float(1.0 - (1.0 - least_kept) * torch.rand(1, generator=generator))))
    # Drawn anew for every image; the predictor does not depend on the order, so choosing is all that shuffling does.
    chosen = torch.rand(mask.shape, generator=generator).argsort(dim=1)[:, :kept].to(tokens.device)
    logits = predictor(tokens.gather(1, chosen[..., None].expand(-1, -1, tokens.shape[2])), mask.gather(1, chosen))
    return cross_entropy(logits.float().flatten(0, 1), target.gather(1, chosen).flatten())


class Laid(NamedTuple):
    """Tokens on the grid (B, N, D), zeros where none was laid, and (B, N) whether one was."""

    tokens: Tensor
    filled: Tensor


def lay(logits: Tensor, tokens: Tensor, mask: Tensor, assignment: Assignment) -> Laid:
    """Lays every token on one position.

    Args:
        logits: (B, L, N + 1) of a PositionPredictor.
        tokens: (B, L, D).
        mask: (B, L), True where a token is real.
        assignment: ``argmax`` lays each token where it most likely belongs, and where several meet the most confident
            one wins; ``hungarian`` finds the likeliest assignment of distinct positions.
    """
    positions = logits.shape[2] - 1
    scores = logits.float().log_softmax(dim=2)
    # Which token lies on each position; L stands for none.
    none = tokens.shape[1]
    choose = _most_confident if assignment == "argmax" else _hungarian
    owner = choose(scores, mask & (scores.argmax(dim=2) < positions), none)
    padded = torch.cat([tokens, torch.zeros_like(tokens[:, :1])], dim=1)
    laid = padded.gather(1, owner[..., None].expand(-1, -1, tokens.shape[2]))
    return Laid(laid, owner < none)


def _most_confident(scores: Tensor, usable: Tensor, none: int) -> Tensor:
    """Returns (B, N) the owner of each position by argmax."""
    confidence, choice = scores[:, :, :-1].max(dim=2)
    images, length, positions = len(scores), scores.shape[1], scores.shape[2] - 1
    claims = torch.full((images, length, positions), -torch.inf, device=scores.device)
    claims.scatter_(2, choice[..., None], confidence[..., None])
    best, owner = claims.masked_fill(~usable[..., None], -torch.inf).max(dim=1)
    return torch.where(best > -torch.inf, owner, none)


def _hungarian(scores: Tensor, usable: Tensor, none: int) -> Tensor:
    """Returns (B, N) the owner of each position by the likeliest assignment (Kuhn 1955)."""
    owner = torch.full((len(scores), scores.shape[2] - 1), none)
    for image, (own, use) in enumerate(zip(scores[:, :, :-1].cpu(), usable.cpu(), strict=True)):
        rows = use.nonzero().squeeze(1)
        row, column = linear_sum_assignment(own[rows].numpy(), maximize=True)
        owner[image, torch.from_numpy(column)] = rows[torch.from_numpy(row)]
    return owner.to(scores.device)
