"""What a training run needs to go on after it was stopped, in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


def save_state(path: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer, notes: Any) -> None:
    """Writes the modules, the optimiser's moments and JSON-like notes; an interrupted write leaves the old file."""
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors |= {f"{name}/{key}": value.detach().clone().contiguous() for key, value in module.state_dict().items()}
    for number, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{number}/{key}": torch.as_tensor(value).clone() for key, value in moments.items()}
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata={"notes": json.dumps(notes)})
    part.replace(path)


def load_state(path: Path, modules: dict[str, nn.Module], optimiser: torch.optim.Optimizer) -> Any:
    """Restores what ``save_state`` wrote into the same modules and optimiser; returns the notes."""
    with safe_open(path, framework="pt") as file:
        notes = json.loads(file.metadata()["notes"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    for name, module in modules.items():
        prefix = f"{name}/"
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            _, number, field = key.split("/")
            moments.setdefault(int(number), {})[field] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    return notes
