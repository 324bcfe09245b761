"""Floors on images that are their own numbers: what all leakage is counted above."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from leakgauge.attacks.floors import ClassMeanFloor, MeanImageFloor, NearestImageFloor
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

RNG, LEVELS = Streams(0), torch.tensor([10, 20, 60, 200])


def observed(levels, output=None) -> Observation:
    """Two tokens an image: its level, and twice that."""
    values = torch.as_tensor(levels).float()
    tokens = torch.stack([values, 2 * values], dim=1).flatten()[:, None]
    return Observation(tokens, torch.full((len(values),), 2), 0, (1, 2), output=output)


@pytest.fixture
def auxiliary():
    pixels = LEVELS.to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2).contiguous()
    return ImageSet.from_pixels(pixels, torch.tensor([0, 0, 1, 1]))


def rebuilt(attack, auxiliary, seen):
    view = SimpleNamespace(observe=lambda images: observed(images.pixels[:, 0, 0, 0]))
    attack.fit(view, auxiliary, RNG)
    return [round(255 * float(image.mean()), 3) for image in attack.reconstruct(seen, RNG)]


def test_the_mean_image(auxiliary):
    assert rebuilt(MeanImageFloor(), auxiliary, observed([1, 99, 5])) == [72.5] * 3


def test_the_mean_image_of_the_class_that_the_server_answers(auxiliary):
    answers = torch.tensor([[0.0, 1.0, 0.5], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    # Of the third class there are no images: the mean of all.
    assert rebuilt(ClassMeanFloor(), auxiliary, observed([1, 1, 1], answers)) == [130.0, 15.0, 72.5]


@pytest.mark.parametrize("candidates", [1, 4])
def test_the_image_of_the_nearest_tokens(auxiliary, candidates):
    assert rebuilt(NearestImageFloor(candidates), auxiliary, observed([12, 58, 190, 21])) == [10.0, 60.0, 200.0, 20.0]
