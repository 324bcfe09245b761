"""Which received token stands for which patches: known from the merge map, or estimated by optimal transport."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.tokens import DROPPED

SWEEPS = 50


def known_mass(observations: Observation, length: int, prefix: int) -> Tensor:
    """Returns the assignment that the merge map states.

    Protected tokens stand for themselves; where their place was withheld, nothing is assigned to them.

    Args:
        observations: B images with their merge map.
        length: L, places for received tokens.
        prefix: Protected tokens of the victim, P.

    Returns:
        (B, L, P + N) of 0 and 1: whether a received token stands for a unreduced one.
    """
    merge_map = observations.merge_map
    assert merge_map is not None
    images, patches = merge_map.shape
    mass = torch.zeros(images, length, prefix + patches, device=merge_map.device)
    image, patch = (merge_map != DROPPED).nonzero(as_tuple=True)
    mass[image, merge_map[image, patch], prefix + patch] = 1.0
    if observations.prefix == prefix:
        first = torch.arange(prefix, device=mass.device)
        mass[:, first, first] = 1.0
    return mass


def transport(cost: Tensor, least: Tensor, most: Tensor, all_sent: Tensor, temperature: float) -> Tensor:
    """Assigns unreduced tokens softly to received ones at the least cost.

    Entropic optimal transport by matrix scaling, with bounds in place of the marginals: every unreduced token has a
    mass of one to give (up to one where tokens may be dropped), and a received token takes between ``least`` and
    ``most``. Cuturi, NeurIPS 2013; bounds after Chizat et al., Math. Comp. 2018, section 4. Images do not mix.

    Args:
        cost: (B, L, U) of assigning unreduced token u to received token l.
        least: (B, L) mass that a received token takes at least; 0 for padding.
        most: (B, L) mass that it takes at most; 0 for padding.
        all_sent: (B,) whether every unreduced token of an image went into some received token.
        temperature: Softness, in units of cost.

    Returns:
        (B, L, U) in [0, 1].
    """
    logits = -cost / temperature
    logits = logits.masked_fill((most <= 0)[:, :, None], -torch.inf)
    low, high = least.clamp_min(1e-9).log(), most.clamp_min(1e-9).log()
    rows, columns = torch.zeros_like(least), torch.zeros_like(cost[:, 0])
    for _ in range(SWEEPS):
        given = torch.logsumexp(logits + rows[:, :, None], dim=1)
        columns = -torch.where(all_sent[:, None], given, given.clamp_min(0.0))
        taken = torch.logsumexp(logits + columns[:, None, :], dim=2)
        # A free row keeps its scale: it is moved only as far as its bounds demand. Padding takes nothing either way.
        rows = torch.maximum(torch.minimum(torch.zeros_like(taken), high - taken), low - taken)
        rows = torch.where(most > 0, rows, 0.0)
    # A last turn of the columns, so that no unreduced token is given away twice.
    given = torch.logsumexp(logits + rows[:, :, None], dim=1)
    columns = -torch.where(all_sent[:, None], given, given.clamp_min(0.0))
    return (logits + rows[:, :, None] + columns[:, None, :]).exp()
