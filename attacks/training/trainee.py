"""A network in training: takes optimiser steps, and can be copied in the middle of a training."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from leakgauge.attacks.training.muon import Muon
from leakgauge.harness.store.number_type import training_type

LossOf = Callable[[nn.Module], Tensor]
"""Returns the loss () of a network on one batch."""


def hidden_matrices(network: nn.Module) -> list[Tensor]:
    """Returns the weights of linear layers, but for children that ``network.outer`` names: first and last layers."""
    outer = tuple(f"{name}." for name in getattr(network, "outer", ()))
    return [
        module.weight
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and not f"{name}.".startswith(outer) and module.weight.requires_grad
    ]


class Trainee:
    """A network and its optimisers.

    AdamW, and for hidden matrices Muon if asked for (Jordan et al. 2024: momentum, orthogonalised), with updates scaled
    to the size of AdamW's (Liu et al. 2025, Muon is Scalable for LLM Training, section 2.2).

    Args:
        network: What to train, on its device; put into training mode.
        weight_decay: On matrices only.
        muon: Learning rate of Muon over AdamW's; 0 leaves all to AdamW.
    """

    def __init__(self, network: nn.Module, weight_decay: float, muon: float = 0.0) -> None:
        self.network, self._weight_decay, self._muon = network.train(), weight_decay, muon
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        matrices = hidden_matrices(network) if muon > 0 else []
        taken = {id(p) for p in matrices}
        rest = [p for p in self._parameters if id(p) not in taken]
        adam = torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.ndim > 1], "weight_decay": weight_decay},
                {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
            ],
            betas=(0.9, 0.98),
            fused=True,
        )
        self._optimisers: list[tuple[torch.optim.Optimizer, float]] = [(adam, 1.0)]
        if matrices:
            number_type = training_type(matrices[0].device, "orthogonalise")
            orthogonal = Muon(matrices, number_type, weight_decay=weight_decay)
            self._optimisers.append((orthogonal, muon))

    def step(self, rate: float, loss_of: LossOf) -> float:
        """Takes one step at a learning rate and returns the loss before it."""
        value = loss_of(self.network.train())
        self.network.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for optimiser, scale in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * scale
            optimiser.step()
        return value.item()

    def branch(self) -> Trainee:
        """Returns a copy that shares nothing with this one: weights, buffers and moments are its own."""
        other = Trainee(copy.deepcopy(self.network), self._weight_decay, self._muon)
        for (own, _), (others, _) in zip(self._optimisers, other._optimisers, strict=True):
            # Loading alone would share the moments.
            others.load_state_dict(copy.deepcopy(own.state_dict()))
        return other
