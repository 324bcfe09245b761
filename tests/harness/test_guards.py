import pytest
import torch

from harness import guards
from harness.contracts import Attack
from harness.errors import PluginError
from harness.observation import Observation
from harness.seeding import Streams

SEEN = Observation(torch.zeros(4, 2), torch.tensor([2, 2]), 1, (1, 1))


class Fixed(Attack):
    name = "fixed"

    def __init__(self, answer):
        self.answer = answer

    def fit(self, view, auxiliary, rng):
        return self.answer

    def reconstruct(self, observations, rng):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_proper_answer_is_rounded_to_bytes():
    found = guards.reconstruct(Fixed(torch.full((2, 3, 4, 4), 0.5)), SEEN, (3, 4, 4), Streams(0))
    assert found.dtype == torch.uint8
    assert bool((found == 128).all())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.zeros(1, 3, 4, 4), "expected"),
        ("picture", "expected"),
        (torch.full((2, 3, 4, 4), float("nan")), "NaN"),
        (torch.full((2, 3, 4, 4), 1.5), "leave"),
        (ValueError("boom"), "ValueError: boom"),
    ],
)
def test_a_broken_answer_names_the_attack(answer, message):
    with pytest.raises(PluginError, match=message) as caught:
        guards.reconstruct(Fixed(answer), SEEN, (3, 4, 4), Streams(0))
    assert "fixed" in str(caught.value)


def test_fit_must_return_a_curve_or_nothing():
    with pytest.raises(PluginError, match="LearningCurve"):
        guards.fit(Fixed(3), None, None, Streams(0))
