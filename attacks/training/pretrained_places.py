"""The shipped network that finds places: where it lies, which images it never saw, and for whom it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

import torch
from safetensors.torch import load_file
from torch import Tensor

from leakgauge.attacks.networks.set_network import SeekingNetwork
from leakgauge.harness.contracts.attack import AttackerView
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.images import ImageSet

NAME = "photos_places"
FOLDER = Path(__file__).parent.parent / "pretrained"
PLACES_SIZE = {"width": 96, "layers": 1, "heads": 4}
FOR_MAPS = 4
"""One in so many clusters was kept from the training, for whoever fits maps on what the network says of them."""


class Record(TypedDict):
    """What is read of the record of a training."""

    victim: str
    steps: int


def for_maps(images: ImageSet) -> Tensor:
    """Returns (B,) whether the training left an image out: every fourth cluster, by a hash of its number."""
    groups = torch.arange(len(images)) if images.groups is None else images.groups
    return (groups * 2654435761 % 2**32 >> 16) % FOR_MAPS == 0


def record_of(name: str = NAME) -> Record:
    """Returns the record of a training."""
    found: Record = json.loads((FOLDER / f"{name}.training.json").read_text(encoding="utf-8"))
    return found


def pretrained_places(view: AttackerView) -> SeekingNetwork:
    """Loads the shipped network for a victim.

    Raises:
        ConfigError: It was trained for another victim, or for images of another shape.
    """
    state = {name: value.float() for name, value in load_file(FOLDER / f"{NAME}.safetensors").items()}
    network = SeekingNetwork(state["mean"], state["std"], (3, 64, 64), (8, 8), **PLACES_SIZE)
    network.load_state_dict(state)
    trained_for, victim = record_of()["victim"], view.white_box()
    if victim.weights_hash != trained_for or (view.image_shape, view.grid) != (network.image_shape, network.grid):
        raise ConfigError(
            f"its weights were trained for the victim {trained_for} on 64 px, this is {victim.weights_hash}",
            where="attack 'cascade_pretrained'",
            hint="use cascade_merged, which trains its own",
        )
    return network.to(view.device)
