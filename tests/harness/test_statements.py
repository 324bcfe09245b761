"""What is said of a cell and of a victim follows from what was measured: bounds, chance, shifted images, judges."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from leakgauge.harness.contracts.link import ChannelState
from leakgauge.harness.measurement.attack_run import _unadapted
from leakgauge.harness.measurement.auxiliary import auxiliary_images
from leakgauge.harness.measurement.undefended import _chance
from leakgauge.harness.scoring.judging import Judge, JudgedGallery
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.images import ImageSet

CPU = torch.device("cpu")


def test_chance_is_what_the_best_constant_answer_reaches():
    def chance(*target):
        task = SimpleNamespace(target=lambda images: torch.tensor(target))
        return _chance(SimpleNamespace(task=task, evaluation=None))

    assert chance(3, 3, 3, 5) == 0.75
    assert chance(0, 1, 2, 3) == 0.25
    assert chance(0.5, 0.5) is None


@pytest.mark.parametrize(
    ("point", "floor", "granted", "adaptive", "bound"),
    [
        ("merged", False, True, True, False),
        ("merged", False, False, True, True),
        ("merged", False, True, False, True),
        ("undefended", False, False, False, False),
        ("merged", True, False, False, False),
    ],
)
def test_who_did_not_adapt_gives_a_lower_bound(point, floor, granted, adaptive, bound):
    context = SimpleNamespace(suite=SimpleNamespace(baseline_point="undefended"))
    model = SimpleNamespace(adaptive=granted)
    cell = SimpleNamespace(exposure=SimpleNamespace(point=SimpleNamespace(name=point), threat_model=model))
    assert bool(_unadapted(context, cell, SimpleNamespace(floor=floor, adaptive=adaptive))) == bound


def test_shifted_images_are_another_s_and_carry_no_labels():
    def images(level, count=10):
        pixels = torch.full((count, 3, 8, 8), level, dtype=torch.uint8)
        pixels[:, 0, 0, 0] = torch.arange(count)
        return ImageSet.from_pixels(pixels, torch.zeros(count, dtype=torch.long), torch.arange(count) // 2)

    task = SimpleNamespace(name="toy", split=lambda name: images(1), shifted=lambda: images(200), input_px=lambda: 8)
    own = auxiliary_images(task, ThreatModel(auxiliary={"n": 4}))
    shifted = auxiliary_images(task, ThreatModel(auxiliary={"domain": "shifted", "n": 4}))
    assert int(own.pixels[:, 1].max()) == 1
    assert int(shifted.pixels[:, 1].min()) == 200
    assert own.labels is not None
    assert shifted.labels is None
    assert shifted.groups.tolist() == own.groups.tolist()
    assert len(own) == len(shifted) == 4


class Pixels(Judge):
    """Judges by the first two pixels of the red channel."""

    name = "pixels"

    def features(self, images):
        assert float(images.max()) <= 1
        return images[:, 0, 0, :2]


def test_agreement_is_the_cosine_about_the_mean_of_the_originals():
    def pictures(*rows):
        red = torch.tensor(rows, dtype=torch.uint8)
        pixels = torch.zeros(len(rows), 3, 2, 2, dtype=torch.uint8)
        pixels[:, 0, 0] = red
        return pixels

    originals = pictures((120, 100), (80, 100), (100, 120), (100, 80))  # about (100, 100)
    rebuilt = pictures((110, 100), (80, 80), (100, 80), (100, 70))
    found = JudgedGallery(Pixels(), originals, CPU, 3).scores(rebuilt).values
    assert found["judge_agreement"].tolist() == pytest.approx([1.0, 0.5**0.5, 0.0, 1.0], abs=1e-6)
    # By plain cosine (110, 100) lies nearest to (120, 100), and (100, 80) to the fourth original, not to the third.
    assert found["judge_reid_top1"][[0, 2]].tolist() == [1.0, 0.0]


def test_shrunk_values_are_unshrunk_and_their_noise_with_them():
    state = ChannelState(torch.tensor([0.5, 0.5]), None, torch.tensor([0.5, 1.0]))
    factor, variance = state.unbiased()
    assert factor.tolist() == [2.0, 1.0]
    assert variance.tolist() == [0.5, 0.25]
    factor, variance = ChannelState(torch.tensor([0.5])).unbiased()
    assert (factor.tolist(), variance.tolist()) == ([1.0], [0.25])
