"""Attribute scores: areas under the curve against brute force, their intervals, and the guess without a payload."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import torch

from leakgauge.harness.scoring import statistics
from leakgauge.harness.scoring.attributes import auc_interval, informed_guess, macro_auc
from leakgauge.harness.values.seeding import Streams

STREAMS = Streams(0, ("test", "auc"))


def brute_force(scores: np.ndarray, answers: np.ndarray) -> float:
    """Counts pairs: an image of the class against one of the rest, a tie a half."""
    areas = []
    for c in range(scores.shape[1]):
        own, rest = scores[answers == c, c], scores[answers != c, c]
        if len(own) and len(rest):
            areas.append(np.mean([(a > b) + 0.5 * (a == b) for a in own for b in rest]))
    return float(np.mean(areas)) if areas else math.nan


def example(images: int, classes: int, *, ties: bool, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng((images, classes, seed))
    answers = rng.integers(0, classes, images)
    scores = rng.normal(size=(images, classes)) + np.eye(classes)[answers]
    return torch.from_numpy(scores.round(0 if ties else 12)), torch.from_numpy(answers)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("ties", [True, False])
def test_agrees_with_counting_pairs(classes: int, ties: bool) -> None:
    scores, answers = example(40, classes, ties=ties)
    assert macro_auc(scores, answers) == pytest.approx(brute_force(scores.numpy(), answers.numpy()))


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    scores, answers = example(60, 4, ties=False)
    shares = scores.softmax(dim=1)
    expected = roc_auc_score(answers.numpy(), shares.numpy(), multi_class="ovr", average="macro")
    assert macro_auc(shares, answers) == pytest.approx(expected)


def test_perfect_inverted_constant_and_lonely_classes() -> None:
    answers = torch.tensor([0, 1, 1, 0])
    right = torch.nn.functional.one_hot(answers, 2).double()
    assert macro_auc(right, answers) == 1.0
    assert macro_auc(-right, answers) == 0.0
    assert macro_auc(torch.zeros(4, 2), answers) == 0.5
    assert math.isnan(macro_auc(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)))
    # A third class without images changes nothing; one without a column is the rest of the others.
    assert macro_auc(torch.cat([right, torch.ones(4, 1)], dim=1), answers) == 1.0
    assert macro_auc(right, torch.tensor([0, 1, 5, 0])) == pytest.approx((1 + 2.5 / 3) / 2)


def test_only_the_order_of_scores_counts() -> None:
    scores, answers = example(50, 3, ties=False)
    assert macro_auc(scores.exp(), answers) == macro_auc(scores, answers)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_interval_is_that_of_resampled_clusters(classes: int) -> None:
    scores, answers = example(30, classes, ties=True, seed=1)
    groups = torch.arange(30) // 3
    draws = STREAMS.numpy().integers(0, 10, (200, 10))
    rows = [np.concatenate([np.arange(30)[groups == g] for g in draw]) for draw in draws]
    areas = [brute_force(scores.numpy()[row], answers.numpy()[row]) for row in rows]
    tail = statistics._tail(10)
    found = auc_interval(scores, answers, groups, STREAMS, resamples=200)
    assert found[:3] == pytest.approx((macro_auc(scores, answers), *np.quantile(areas, [tail, 1 - tail])))
    assert (found.n, found.unscored) == (30, 0)


def test_blocks_and_group_names_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, answers = example(40, 3, ties=True)
    groups = torch.arange(40) % 9
    whole = auc_interval(scores, answers, groups, STREAMS)
    monkeypatch.setattr(statistics, "_BLOCK", 500)
    assert auc_interval(scores, answers, groups * 7 - 3, STREAMS) == pytest.approx(whole)


def test_without_groups_every_image_is_its_own() -> None:
    scores, answers = example(20, 2, ties=False)
    assert auc_interval(scores, answers, None, STREAMS) == auc_interval(scores, answers, torch.arange(20), STREAMS)


def test_the_interval_covers() -> None:
    hits = 0
    for trial in range(300):
        rng = np.random.default_rng(trial)
        groups = np.repeat(np.arange(20), 3)
        answers = rng.integers(0, 2, 60)
        # A shift of one standard deviation between the classes: AUC = Phi(1 / sqrt(2)) = .7602.
        values = rng.normal(size=60) + answers
        scores = torch.from_numpy(np.stack([-values, values], axis=1))
        found = auc_interval(scores, torch.from_numpy(answers), torch.from_numpy(groups), STREAMS.child(trial), 300)
        hits += found.lo <= 0.7602 <= found.hi
    assert 0.90 <= hits / 300 <= 0.99


def test_one_cluster_or_one_class_leaves_no_bounds() -> None:
    scores, answers = example(10, 2, ties=False)
    for found in (
        auc_interval(scores, answers, torch.zeros(10, dtype=torch.long), STREAMS),
        auc_interval(scores, torch.zeros(10, dtype=torch.long), None, STREAMS),
    ):
        assert math.isnan(found.lo)
        assert math.isnan(found.hi)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"must be \(B, C\) and \(B,\)"):
        macro_auc(torch.zeros(3, 2), torch.zeros(4, dtype=torch.long))


def test_a_guess_takes_the_most_common_class_of_the_label() -> None:
    known, labels = torch.tensor([0, 0, 1, 1, 1, 1]), torch.tensor([5, 5, 5, 6, 6, 6])
    answers, asked = torch.tensor([0, 1, 1, 0]), torch.tensor([5, 5, 6, 7])
    # Label 5: mostly 0; label 6: always 1; label 7 is new, and 1 is the most common overall.
    assert informed_guess(known, labels, answers, asked, 2).accuracy == 0.5
    alone = informed_guess(known, None, answers, None, 2)
    assert alone == (0.5, 0.5)
    assert informed_guess(known, None, torch.tensor([1, 1, 1, 0]), None, 2).accuracy == 0.75
    assert informed_guess(torch.tensor([1, 0]), None, torch.tensor([0, 0, 1]), None, 2).accuracy == pytest.approx(2 / 3)


def test_a_label_that_gives_the_attribute_away_is_a_perfect_guess() -> None:
    known = torch.tensor([0, 1, 0, 1])
    assert informed_guess(known, known + 10, known, known + 10, 2) == (1.0, 1.0)
