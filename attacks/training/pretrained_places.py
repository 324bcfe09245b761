"""The shipped network that finds places: where it lies, which images it never saw, and for whom it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict

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


FEW = 4
SAME = 0.01
"""Share of their variance by which tokens may differ; those of one block more or less differ by 0.16."""


class Record(TypedDict):
    """What is read of the record of a training."""

    victim: str
    cut: int
    steps: int


def for_maps(images: ImageSet) -> Tensor:
    """Returns (B,) whether the training left an image out: every fourth cluster, by a hash of its number."""
    groups = torch.arange(len(images)) if images.groups is None else images.groups
    return (groups * 2654435761 % 2**32 >> 16) % FOR_MAPS == 0


def record_of(name: str = NAME) -> Record:
    """Returns the record of a training."""
    found: Record = json.loads((FOLDER / f"{name}.training.json").read_text(encoding="utf-8"))
    return found


def pretrained_places(view: AttackerView, images: ImageSet) -> SeekingNetwork:
    """Loads the shipped network, for the victim and the cut that it was trained for.

    Args:
        view: The attacker's handle.
        images: Own images, of which a few show where the victim is cut.

    Raises:
        ConfigError: It was trained for another victim, or for another cut of it.
    """
    record, victim = record_of(), view.white_box()
    if victim.weights_hash != record["victim"]:
        raise _refusal(f"the victim {record['victim']}, this is {victim.weights_hash}")
    if not _cut_at(record["cut"], view, images.select(range(min(len(images), FEW))).images().to(view.device)):
        raise _refusal(f"cut {record['cut']}, this victim is cut elsewhere")
    state = {name: value.float() for name, value in load_file(FOLDER / f"{NAME}.safetensors").items()}
    network = SeekingNetwork(state["mean"], state["std"], view.image_shape, view.grid, **PLACES_SIZE)
    network.load_state_dict(state)
    return network.to(view.device)


def _refusal(found: str) -> ConfigError:
    hint = "use cascade_merged, which trains its own"
    return ConfigError(f"its weights were trained for {found}", where="attack 'cascade_pretrained'", hint=hint)


@torch.no_grad()
def _cut_at(cut: int, view: AttackerView, images: Tensor) -> bool:
    """Tells whether the edge ends behind so many blocks: its tokens are those of the victim there, but for rounding."""
    victim = view.white_box()
    model: Any = victim.to(view.device)
    places, first = model.forward_intermediates(
        victim.normalise(images),
        indices=[cut - 1],
        norm=False,
        output_fmt="NLC",
        return_prefix_tokens=True,
        intermediates_only=True,
    )[0]
    expected = torch.cat([first, places], dim=1).flatten(0, 1)
    sent = view.edge_tokens(images).tokens
    return sent.shape == expected.shape and float((sent - expected).square().mean() / expected.var()) < SAME
