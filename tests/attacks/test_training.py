"""The training loop: schedule, the branch of half the steps, convergence."""

import copy

import pytest
import torch
from photo_views import MERGE, RNG, few_images, view_of
from torch import nn
from torch.nn.functional import mse_loss

from leakgauge.attacks.networks.set_network import SetNetwork
from leakgauge.attacks.set_decoder import SetDecoder, pixel_loss
from leakgauge.attacks.training.layout import token_statistics
from leakgauge.attacks.training.loop import Schedule, train
from leakgauge.attacks.training.trainee import Trainee
from leakgauge.harness.values.learning_curve import CurvePoint, LearningCurve, convergence_failure

SCHEDULE = Schedule(steps=20, batch_size=8, peak_lr=1e-3, warmup_steps=3)


@pytest.fixture(scope="module")
def auxiliary():
    return few_images()


@pytest.fixture
def noisy_view(victim):
    return view_of(victim, **MERGE, channel={"name": "awgn", "snr_db": 10})


class Normed(nn.Module):
    """A network with buffers that training changes."""

    def __init__(self, within: SetNetwork) -> None:
        super().__init__()
        self.within, self.norm = within, nn.BatchNorm2d(3)

    def forward(self, observations):
        return self.norm(self.within(observations))


def network_for(view, auxiliary) -> nn.Module:
    torch.manual_seed(0)
    mean, std = token_statistics(view.observe(auxiliary))
    return Normed(SetNetwork(mean, std, (3, 64, 64), (8, 8), width=16, layers=1, heads=2))


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_rate_is_constant_until_half_and_that_of_half_the_steps_until_a_quarter():
    schedule = Schedule(steps=100, batch_size=1, peak_lr=1.0, warmup_steps=10)
    half = schedule.halved()
    assert [schedule.rate(s) for s in range(9, 51)] == [1.0] * 42
    assert schedule.rate(51) < 1.0
    assert schedule.rate(99) < 1e-3
    assert [schedule.rate(s) for s in range(26)] == [half.rate(s) for s in range(26)]
    assert half.rate(49) < 1e-2


def test_the_branch_leaves_the_training_bit_identical_and_equals_a_training_of_half_the_steps(noisy_view, auxiliary):
    first = network_for(noisy_view, auxiliary)
    with_branch, without, real_half = (copy.deepcopy(first) for _ in range(3))
    branched = train(with_branch, noisy_view, auxiliary, SCHEDULE, mse_loss, RNG)
    real_quarter = copy.deepcopy(first)
    plain = train(without, noisy_view, auxiliary, SCHEDULE, mse_loss, RNG, double_check=False)
    half = train(real_half, noisy_view, auxiliary, SCHEDULE.halved(), mse_loss, RNG, double_check=False)
    shorter = SCHEDULE.halved().halved()
    quarter = train(real_quarter, noisy_view, auxiliary, shorter, mse_loss, RNG, double_check=False)
    assert same_weights(with_branch, without)
    assert not same_weights(with_branch, first)
    assert branched.points == plain.points
    assert plain.doubling_gain_db is None
    assert branched.half_budget is not None
    assert branched.half_budget.step == 10
    assert branched.half_budget.heldout_psnr_db == half.points[-1].heldout_psnr_db
    assert branched.quarter_budget.step == 5
    assert branched.quarter_budget.heldout_psnr_db == quarter.points[-1].heldout_psnr_db
    earlier = half.points[-1].heldout_psnr_db - quarter.points[-1].heldout_psnr_db
    assert branched.earlier_gain_db == pytest.approx(earlier)
    gain = branched.points[-1].heldout_psnr_db - half.points[-1].heldout_psnr_db
    assert branched.doubling_gain_db == pytest.approx(gain)


def test_a_twin_shares_nothing():
    network = nn.Linear(4, 4)
    one = Trainee(network, 0.01)
    one.step(0.1, lambda n: n(torch.ones(1, 4)).square().sum())
    branch = one.branch()
    before = copy.deepcopy(network.state_dict())
    branch.step(0.1, lambda n: n(torch.ones(1, 4)).sum())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), network.state_dict().values(), strict=True))
    again = one.branch()
    for trainee in (one, again):
        trainee.step(0.1, lambda n: n(torch.ones(1, 4)).square().sum())
    assert same_weights(one.network, again.network)


def test_a_curve_keeps_its_branch_on_disk_and_old_curves_are_read():
    curve = LearningCurve(10, [CurvePoint(10, 0.1, 21.0)])
    curve.compare(CurvePoint(5, 0.2, 20.5), CurvePoint(2, 0.3, 20.25))
    assert curve.doubling_gain_db == pytest.approx(0.5)
    assert LearningCurve.from_dict(curve.as_dict()) == curve
    old = {key: value for key, value in curve.as_dict().items() if not key.endswith("_budget")}
    assert LearningCurve.from_dict(old).half_budget is None
    assert LearningCurve.from_dict(old).earlier_gain_db is None


def flat_curve(steps=1000, *, earlier=0.1, last=0.1) -> LearningCurve:
    curve = LearningCurve(steps, [CurvePoint(steps * i // 5, 0.1, 20.0) for i in range(1, 6)])
    half = 20.0 - last
    curve.compare(CurvePoint(steps // 2, 0.1, half), CurvePoint(steps // 4, 0.1, half - earlier))
    return curve


@pytest.mark.parametrize("gain", [0.31, 5.0, float("nan")])
def test_a_large_gain_from_either_of_the_last_two_doublings_is_inconclusive(gain):
    assert "twice the steps" in convergence_failure(flat_curve(last=gain))
    assert "quarter to half" in convergence_failure(flat_curve(earlier=gain))
    assert convergence_failure(flat_curve()) is None


def test_one_small_doubling_alone_proves_nothing():
    curve = flat_curve()
    curve.quarter_budget = None
    assert "only one doubling" in convergence_failure(curve)


def test_fewer_steps_than_the_plug_in_states_prove_nothing():
    assert "fewer than 500" in convergence_failure(flat_curve(499), SetDecoder.least_steps)
    assert convergence_failure(flat_curve(500), SetDecoder.least_steps) is None
    assert "fewer than 100" in convergence_failure(flat_curve(60), 1), "no plug-in talks itself below the least of all"


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_an_attacker_of_a_few_steps_is_inconclusive(victim, auxiliary, steps):
    curve = SetDecoder(steps=steps, width=16, layers=1).fit(view_of(victim), auxiliary, RNG)
    assert convergence_failure(curve)
    assert curve.points[-1].step == steps


def test_without_the_check_every_training_is_inconclusive(victim, auxiliary):
    attack = SetDecoder(steps=20, width=16, layers=1, double_check=False)
    curve = attack.fit(view_of(victim), auxiliary, RNG)
    assert curve.doubling_gain_db is None
    assert convergence_failure(curve)


def test_what_is_added_to_the_loss_is_trained(victim, auxiliary):
    view = view_of(victim)
    first = network_for(view, auxiliary)
    pulled = copy.deepcopy(first)

    def forward(network, observed):
        return network(observed), network.within.query.square().mean()

    schedule = Schedule(30, 4, 1e-2, warmup_steps=1, weight_decay=0.0)
    train(pulled, view, auxiliary, schedule, pixel_loss, RNG, forward=forward, double_check=False)
    assert pulled.within.query.square().mean() < 0.9 * first.within.query.square().mean()


def test_pixel_loss_falls_with_the_error_of_every_image():
    targets = torch.rand(4, 3, 8, 8)
    noise = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    losses = [float(pixel_loss(targets + s * noise, targets)) for s in (0.4, 0.2, 0.1, 0.0)]
    assert losses == sorted(losses, reverse=True)
