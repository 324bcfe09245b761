"""A learning curve is measured on images that the attacker never trained on, in their own terms."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from leakgauge.attacks.training.loop import batches, hold_out, mean_psnr_db, train
from leakgauge.attacks.training.schedule import Schedule
from leakgauge.attacks.training.trainee import Trainee
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

COUNT, RNG = 60, Streams(0, ("attack",))


def numbered(groups=None) -> ImageSet:
    """Images whose every pixel is their number."""
    pixels = torch.arange(COUNT, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2).contiguous()
    return ImageSet.from_pixels(pixels, None, groups)


def observed(images, draw=0) -> Observation:
    numbers = images.pixels[:, 0, 0, 0].float()[:, None]
    return Observation(numbers, torch.ones(len(images), dtype=torch.long), 0, (1, 1))


class Remembers(nn.Module):
    """Answers with one learned grey, and notes which images it was shown in training."""

    def __init__(self) -> None:
        super().__init__()
        self.grey, self.trained = nn.Parameter(torch.tensor(0.5)), set[int]()

    def forward(self, observations):
        if self.training:
            self.trained |= {int(n) for n in observations.tokens[:, 0]}
        return self.grey.expand(len(observations), 3, 2, 2)


@pytest.mark.parametrize("groups", [None, torch.arange(COUNT) // 3])
def test_held_out_images_are_never_trained_on(groups):
    images, network = numbered(groups), Remembers()
    view = SimpleNamespace(observe=observed, device=torch.device("cpu"))
    schedule = Schedule(steps=40, batch_size=8, peak_lr=0.0, warmup_steps=1, weight_decay=0.0)
    curve = train(network, view, images, schedule, nn.functional.mse_loss, RNG, double_check=False)
    split = hold_out(images, RNG)
    assert len(split.heldout) >= 3
    assert network.trained.isdisjoint(split.heldout.tolist())
    assert network.trained == set(split.train.tolist())
    targets = split.heldout.float()[:, None, None, None].expand(-1, 3, 2, 2) / 255
    expected = -10 * torch.log10((0.5 - targets[:, 0, 0, 0]).square()).mean()
    assert curve.points[-1].heldout_psnr_db == pytest.approx(float(expected), abs=1e-4)
    if groups is not None:
        assert set(groups[split.heldout].tolist()).isdisjoint(groups[split.train].tolist())


def test_every_epoch_shows_each_image_once_in_a_new_order_and_a_new_draw():
    asked, rows = [], torch.arange(24)
    schedule = Schedule(steps=9, batch_size=8, peak_lr=0.0)
    seen = list(batches(lambda draw: (asked.append(draw), observed(numbered(), draw))[1], rows, schedule, RNG))
    assert asked == [0, 1, 2]
    epochs = [torch.cat([batch.rows for batch in seen[i : i + 3]]).tolist() for i in (0, 3, 6)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(24))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    for batch in seen:
        assert batch.observed.tokens[:, 0].long().tolist() == batch.rows.tolist()


def test_the_mean_is_of_each_image_s_decibels():
    images, targets = torch.zeros(2, 3, 2, 2), torch.tensor([0.1, 0.001])[:, None, None, None].expand(-1, 3, 2, 2)
    assert mean_psnr_db(images, targets) == pytest.approx((20 + 60) / 2, abs=1e-3)


def test_branches_decay_as_trainings_of_half_and_a_quarter_of_the_steps_would(monkeypatch):
    rates, step = {}, Trainee.step

    def noted(self, rate, loss_of):
        rates.setdefault(id(self), []).append(rate)
        return step(self, rate, loss_of)

    monkeypatch.setattr(Trainee, "step", noted)
    view = SimpleNamespace(observe=observed, device=torch.device("cpu"))
    schedule = Schedule(steps=24, batch_size=8, peak_lr=0.01, warmup_steps=2)
    curve = train(Remembers(), view, numbered(), schedule, nn.functional.mse_loss, RNG)
    main, *branches = sorted(rates.values(), key=len, reverse=True)
    half, quarter = schedule.halved(), schedule.halved().halved()
    assert main == [schedule.rate(i) for i in range(24)]
    assert branches == [[one.rate(i) for i in range(one.decay_start, one.steps)] for one in (half, quarter)]
    assert (curve.half_budget.step, curve.quarter_budget.step) == (12, 6)
    ends = [point.heldout_psnr_db for point in (curve.points[-1], curve.half_budget, curve.quarter_budget)]
    assert curve.doubling_gain_db == pytest.approx(ends[0] - ends[1])
    assert curve.earlier_gain_db == pytest.approx(ends[1] - ends[2])
