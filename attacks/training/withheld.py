"""Cuts what an attacker knows of its own images down to what it is going to see of others."""

from __future__ import annotations

from dataclasses import replace

import torch

from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import DROPPED


def like_seen(full: Observation, seen: Observation) -> Observation:
    """Withholds sizes, channel state and order where they are withheld under attack; the merge map stays.

    For networks that do not depend on an order that they are told is withheld, and compare the merge map with their
    guess: the tokens keep their places.

    Args:
        full: The attacker's own images, in the order of the edge.
        seen: What it sees of images under attack.
    """
    return replace(
        full,
        prefix=seen.prefix,
        sizes=None if seen.sizes is None else full.sizes,
        noise_std=None if seen.noise_std is None else full.noise_std,
        ordered=seen.ordered,
    )


def as_seen(full: Observation, seen: Observation, rng: Streams) -> Observation:
    """Withholds all that is withheld under attack: as ``like_seen``, the merge map too, and tokens are shuffled.

    Args:
        full: The attacker's own images, in the order of the edge.
        seen: What it sees of images under attack.
        rng: Shuffles the tokens of every image where the order is withheld.
    """
    cut = like_seen(full, seen)
    if not seen.ordered:
        cut = shuffled(cut, rng)
    return cut if seen.merge_map is not None else replace(cut, merge_map=None)


def shuffled(observations: Observation, rng: Streams) -> Observation:
    """Puts the tokens of every image in a random order, protected ones too; sizes and merge map follow."""
    lengths = observations.lengths
    images = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    keys = torch.rand(len(images), generator=rng.torch(), dtype=torch.float64)
    # Images keep their rows: sorting by image first, and within an image by the random key.
    order = torch.argsort(images.double() + keys)
    merge_map = observations.merge_map
    if merge_map is not None:
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        starts = (lengths.cumsum(0) - lengths)[:, None]
        moved = place[starts + merge_map.clamp_min(0)] - starts
        merge_map = torch.where(merge_map == DROPPED, merge_map, moved)
    return replace(
        observations,
        tokens=observations.tokens[order],
        sizes=None if observations.sizes is None else observations.sizes[order],
        merge_map=merge_map,
        prefix=0,
        ordered=False,
    )
