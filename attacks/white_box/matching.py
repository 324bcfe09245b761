"""How well an image explains an observation: the loss that white-box attacks descend."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from leakgauge.attacks.white_box.assignment import known_mass, transport
from leakgauge.attacks.white_box.edge_profile import EdgeProfile
from leakgauge.harness.values.observation import Observation

Distance = Literal["l2", "cosine"]
FAR = 1e3


class Matching:
    """Compares the unreduced tokens of candidate images with the tokens that were received, image by image.

    Merging is discrete and has no gradient, so the candidate's tokens are pooled the way the received ones must have
    been: by the merge map where it is granted; one to one where nothing was reduced and the order is seen; otherwise
    by an assignment that is estimated from where tokens seem to come from and from how well they fit the candidate,
    and is estimated again as the candidate improves.

    Pooling after the last edge block instead of within each block is an approximation: at the true image the loss is
    zero for unreduced payloads, and small for merged ones.

    Args:
        profile: What is known of the edge.
        observations: B images, on the device of the profile.
        distance: Between standardised tokens: ``l2``, mean square over channels, or ``cosine``, one minus the cosine.
        place_weight: Cost of an unlikely place, against the mean squared difference of standardised tokens.
        temperature: Softness of the estimated assignment, in the same unit.
    """

    def __init__(
        self,
        profile: EdgeProfile,
        observations: Observation,
        *,
        distance: Distance = "l2",
        place_weight: float = 1.0,
        temperature: float = 0.05,
    ) -> None:
        self._profile, self._observations = profile, observations
        self._distance, self._place_weight, self._temperature = distance, place_weight, temperature
        longest = int(observations.lengths.max())
        # One length for all batches, so that batch mates do not change the order of summation.
        tokens, self._mask = observations.as_batch().padded(max(profile.units, longest))
        self.received = profile.standardise(tokens) * self._mask[:, :, None]
        self._place = profile.place_cost(self.received)
        self._least, self._most, self._all_sent = self._bounds(tokens.shape[1])
        self._known = torch.zeros(len(observations), dtype=torch.bool, device=tokens.device)
        self.mass = torch.zeros(len(observations), tokens.shape[1], profile.units, device=tokens.device)
        if observations.merge_map is not None:
            self.mass = known_mass(observations, tokens.shape[1], profile.prefix)
            self._known[:] = True
        elif observations.ordered and profile.laid_in_order:
            self._known = observations.lengths == profile.units
            self.mass[self._known, : profile.units] = torch.eye(profile.units, device=tokens.device)
        self._estimate(self._place_weight * self._place)

    @property
    def estimated(self) -> bool:
        """Whether what some tokens stand for had to be guessed."""
        return not bool(self._known.all())

    def _bounds(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what each token stands for at least and at most, (B, L), and (B,) whether nothing was dropped."""
        seen, profile = self._observations, self._profile
        if seen.sizes is not None:
            batch = seen.as_batch()
            sizes = batch.with_tokens(batch.sizes.float()[:, None]).padded(length)[0].squeeze(2)
            return sizes, sizes, sizes.sum(dim=1) >= profile.units
        least = self._mask.float()
        merged = torch.full_like(seen.lengths, not profile.drops, dtype=torch.bool)
        return least, least if profile.drops else least * profile.units, merged

    def _estimate(self, cost: Tensor) -> None:
        """Assigns the tokens of images without a known assignment at the least cost (B, L, P + N)."""
        if not self.estimated:
            return
        prefix = self._profile.prefix
        if self._observations.prefix == prefix:
            # Protected tokens keep their place, and no patch goes to them.
            apart = torch.zeros_like(cost)
            apart[:, :prefix] = FAR
            apart[:, :, :prefix] = FAR
            first = torch.arange(prefix, device=cost.device)
            apart[:, first, first] = -FAR
            cost = cost + apart
        mass = transport(cost, self._least, self._most, self._all_sent, self._temperature)
        self.mass = torch.where(self._known[:, None, None], self.mass, mass)

    @torch.no_grad()
    def refresh(self, units: Tensor) -> None:
        """Estimates the assignment again, for candidates whose standardised unreduced tokens are (B, P + N, D)."""
        content = torch.cdist(self.received, units).square() / units.shape[2]
        self._estimate(content + self._place_weight * self._place)

    def units(self, tokens: Tensor) -> Tensor:
        """Returns packed unreduced tokens (B * (P + N), D) of candidates, standardised: (B, P + N, D)."""
        return self._profile.standardise(tokens).view(-1, self._profile.units, tokens.shape[1])

    def placed(self) -> Tensor:
        """Returns the received tokens laid where they are assigned to, standardised: (B, P + N, D)."""
        given = self.mass.sum(dim=1).clamp_min(1e-6)
        return (self.mass.transpose(1, 2) @ self.received) / given[:, :, None]

    def loss(self, units: Tensor) -> Tensor:
        """Returns the mean distance over received tokens, (B,), of candidates' tokens (B, P + N, D), standardised."""
        taken = self.mass.sum(dim=2)
        pooled = (self.mass @ units) / taken.clamp_min(1e-6)[:, :, None]
        if self._distance == "l2":
            far = (pooled - self.received).square().mean(dim=2)
        else:
            far = 1.0 - cosine_similarity(pooled, self.received, dim=2)
        counted = ((taken > 0) & self._mask).float()
        return (far * counted).sum(dim=1) / counted.sum(dim=1).clamp_min(1.0)
