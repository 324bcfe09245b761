"""Muon: torch's own where both compute in bfloat16, and an orthogonal update in float32."""

import copy

import pytest
import torch
from torch import nn

from leakgauge.attacks.training.muon import Muon, orthogonalised
from leakgauge.attacks.training.trainee import Trainee


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_in_bfloat16_it_is_torchs_muon():
    ours, theirs = (nn.Parameter(drawn(24, 10)) for _ in range(2))
    one = Muon([ours], torch.bfloat16, weight_decay=0.1)
    other = torch.optim.Muon([theirs], weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        for optimiser, matrix in ((one, ours), (other, theirs)):
            optimiser.param_groups[0]["lr"] = 0.01
            matrix.grad = drawn(24, 10, seed=step + 1)
            optimiser.step()
    assert torch.allclose(ours, theirs, atol=2e-4)
    assert not torch.allclose(ours, drawn(24, 10), atol=1e-2)


@pytest.mark.parametrize("shape", [(16, 16), (48, 12), (12, 48)])
def test_the_update_keeps_singular_vectors_and_evens_out_singular_values(shape):
    matrix = drawn(*shape)
    found = orthogonalised(matrix, torch.float32)
    assert found.dtype == torch.float32
    before, after = torch.linalg.svdvals(matrix), torch.linalg.svdvals(found)
    large = int((before > 0.05 * before[0]).sum())
    assert 0.6 < after[large - 1] <= after[0] < 1.25
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    within = u.T @ found @ v.T
    assert torch.allclose(within, torch.diag(within.diagonal()), atol=1e-4)
    rough = orthogonalised(matrix, torch.bfloat16).float()
    assert (rough - found).norm() / found.norm() < 0.05


def test_float32_trains_as_bfloat16_does_but_for_rounding(monkeypatch):
    target, inputs, first = drawn(8, 8), drawn(64, 8, seed=1), nn.Linear(8, 8, bias=False)
    reached = {}
    for told in ("none", "orthogonalise"):
        monkeypatch.setenv("LEAKGAUGE_BFLOAT16", told)
        trainee = Trainee(copy.deepcopy(first), 0.0, muon=2.0)
        losses = [
            trainee.step(0.02 * (1 - step / 200), lambda n: (n(inputs) - inputs @ target).square().mean())
            for step in range(200)
        ]
        reached[told] = losses[-1] / losses[0]
    assert reached["none"] < 0.5
    assert reached["none"] == pytest.approx(reached["orthogonalise"], rel=0.02)


def test_a_twin_keeps_the_momentum():
    trainee = Trainee(nn.Linear(6, 6), 0.01, muon=1.0)
    trainee.step(0.1, lambda n: n(torch.ones(2, 6)).square().sum())
    branch = trainee.branch()
    for one in (trainee, branch):
        one.step(0.1, lambda n: n(torch.ones(2, 6)).square().sum())
    assert torch.equal(trainee.network.weight, branch.network.weight)
