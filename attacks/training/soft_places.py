"""Lays tokens softly on the grid: every patch gets the mean of the tokens that it may have gone to."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.attacks.networks.set_network import SetNetwork
from leakgauge.attacks.training.context_features import Scaling
from leakgauge.attacks.training.loop import to_device
from leakgauge.attacks.white_box.assignment import transport
from leakgauge.harness.values.observation import Observation


@torch.no_grad()
def soft_places(network: SetNetwork, observations: Observation) -> Tensor:
    """Returns how likely every patch went to every token: (B, N, L), L the most tokens of an image.

    What the network claims, and where sizes are told transported so that no token is laid on more patches than it
    stands for, and none on fewer.

    Args:
        network: A network that was trained to find places.
        observations: B images, without merge map.
    """
    seen = to_device(observations, network.mean.device)
    logits = network.place(seen).logits
    assert logits is not None
    if seen.sizes is None:
        return logits.softmax(dim=2)
    batch = seen.as_batch()
    sizes = batch.with_tokens(batch.sizes.to(logits.dtype)[:, None]).padded(logits.shape[2])[0][..., 0]  # (B, L)
    sizes[:, : seen.prefix] = 0.0
    told, patches = sizes.sum(dim=1), logits.shape[1]
    # Where protected tokens cannot be told from others, more is promised than there are patches.
    least = torch.where(told[:, None] > patches, torch.zeros_like(sizes), sizes)
    return transport(-logits.transpose(1, 2), least, sizes, told >= patches, 1.0).transpose(1, 2)


def softly_laid(observations: Observation, places: Tensor, scaling: Scaling) -> Tensor:
    """Returns tokens as ``context_features.laid`` does, (B, N + P, D'), each patch's a mean weighted by ``places``."""
    batch = observations.as_batch()
    values = (batch.tokens - scaling.mean) / scaling.std
    if observations.sizes is not None:
        values = torch.cat([values, batch.sizes.float().log()[:, None]], dim=1)
    padded, _ = batch.with_tokens(values).padded(places.shape[2])  # (B, L, D')
    first = padded[:, : observations.prefix].clone()
    if observations.sizes is not None:
        first[..., -1] = 0.0
    return torch.cat([places.to(padded) @ padded, first], dim=1)
