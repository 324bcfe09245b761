import re
from pathlib import Path

import pytest
import torch

from leakgauge.harness.contracts.attack import Attack
from leakgauge.harness.contracts.probing import AttributeProbe, IdentityProbe
from leakgauge.harness.errors import PluginError
from leakgauge.harness.measurement.attributes import attributes_of
from leakgauge.harness.scoring import guards
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

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
        (torch.full((2, 3, 4, 4), 1.5), r"range from 1.5 to 1.5, expected 0 to 1 -- undo the normalisation"),
        (torch.full((2, 3, 4, 4), -2.1), r"range from -2.1 to -2.1, .* undo the normalisation"),
        (ValueError("boom"), "ValueError: boom"),
    ],
)
def test_a_broken_answer_names_the_attack(answer, message):
    with pytest.raises(PluginError, match=message) as caught:
        guards.reconstruct(Fixed(answer), SEEN, (3, 4, 4), Streams(0))
    assert "fixed" in str(caught.value)


HINTS = re.compile(r"hint=f?\"([^\"]*)\"")
UNDERSTATING = re.compile(r"\b(clamp|clip|round|lower the learning rate|train less|fewer steps)\b", re.IGNORECASE)


def test_no_refusal_of_an_attack_s_answer_advises_to_rebuild_less():
    root = Path(guards.__file__).parents[2]
    texts = {
        (path.name, hint)
        for folder in ("harness", "attacks")
        for path in (root / folder).rglob("*.py")
        for hint in HINTS.findall(path.read_text(encoding="utf-8"))
    }
    assert len(texts) > 40
    found = {text for text in texts if UNDERSTATING.search(text[1])}
    assert all("undo the normalisation" in hint for _, hint in found), found


def test_fit_must_return_a_curve_or_nothing():
    with pytest.raises(PluginError, match="LearningCurve"):
        guards.fit(Fixed(3), None, None, Streams(0))


class Question(AttributeProbe, IdentityProbe):
    name = "asked"

    def __init__(self, answer):
        self.answer = answer

    def fit(self, view, auxiliary, answers, classes=2, rng=None):
        return self.answer

    def predict(self, observations, rng):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def rank(self, observations, view, gallery, rng):
        return self.predict(observations, rng)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.zeros(2, 3), r"scores are \(2, 3\), expected \(2, 2\)"),
        (torch.zeros(2), r"scores are \(2,\)"),
        ([1, 0], "scores are list"),
        (torch.tensor([[0.0, float("nan")], [0, 0]]), "NaN or infinite"),
        (torch.tensor([[0.0, float("-inf")], [0, 0]]), "NaN or infinite"),
        (ZeroDivisionError("boom"), "(predict|rank) failed: ZeroDivisionError: boom"),
    ],
)
def test_a_broken_probe_is_named(answer, message):
    gallery = ImageSet.from_pixels(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    for ask in (
        lambda: guards.predict(Question(answer), SEEN, 2, Streams(0)),
        lambda: guards.rank(Question(answer), SEEN, None, gallery, Streams(0)),
    ):
        with pytest.raises(PluginError, match=message) as caught:
            ask()
        assert "asked" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_whole_numbers_are_scores_too():
    assert guards.predict(Question(torch.tensor([[1, 0], [0, 2]])), SEEN, 2, Streams(0)).dtype == torch.float64


def test_a_probe_s_fit_must_return_a_curve_or_nothing():
    own, answers = ImageSet.from_pixels(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)), torch.tensor([0, 1])
    with pytest.raises(PluginError, match="'asked': fit must return a LearningCurve"):
        guards.fit_probe(Question(3), None, own, answers, 2, Streams(0))
    with pytest.raises(PluginError, match="fit failed: TypeError"):
        guards.fit_probe(Fixed(3), None, own, answers, 2, Streams(0))


class Odd:
    name = "odd"

    def __init__(self, values):
        self.values = values

    def attributes(self, images):
        return {"mood": self.values}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(3, dtype=torch.long), r"'mood' is \(3,\), expected int64 \(2,\)"),
        (torch.zeros(2), "expected int64"),
        ([0, 1], "is list"),
        (torch.tensor([0, -1]), "classes below 0"),
    ],
)
def test_attributes_are_classes_from_0(values, message):
    images = ImageSet.from_pixels(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(PluginError, match=message) as caught:
        attributes_of(Odd(values), images)
    assert "task 'odd'" in str(caught.value)
    assert attributes_of(Odd(torch.tensor([0, 4])), images)["mood"].tolist() == [0, 4]
