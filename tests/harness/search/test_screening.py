"""The screened sampler stays near the front, repeats, and heeds limits and choices."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial
from search_spaces import searched, small

from leakgauge.harness.search.objectives import Objectives
from leakgauge.harness.search.sampling.screening import Screened, encoded, improvement

SPACE = {"share_0": FloatDistribution(0.0, 2.0), "codec": CategoricalDistribution(["a", "b", "c"])}
UNDEFENDED = {"quality": 0.9, "payload_bytes": 1000.0}
OBJECTIVES = Objectives(small(objectives=["quality", "payload_bytes"], reference={"quality": 0.5}), UNDEFENDED)
UNIT = st.floats(0, 0.99)


def study_of(points):
    """A study of given (share, codec, quality, bytes, excess of a limit)."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    for share, codec, quality, size, excess in points:
        study.add_trial(
            create_trial(
                params={"share_0": share, "codec": codec},
                distributions=SPACE,
                values=[quality, size],
                user_attrs={"violations": {"tokens at_most": excess}},
            )
        )
    return study


def proposal(study, seed=0):
    return Screened(seed, OBJECTIVES).sample_relative(study, study.ask(), SPACE)


RIDGE = [
    (s, "abc"[i % 3], 0.9 - 0.1 * (s - 1.2) ** 2, 900 - 300 * s, -1.0)
    for i, s in enumerate(np.linspace(0, 2, 13).tolist())
]


@given(arrays(float, (4, 3), elements=UNIT), arrays(float, (2, 3), elements=UNIT))
def test_improvement_is_the_hypervolume_gained(front, points):
    objectives = Objectives(
        small(objectives=["gflops_total", "payload_bytes", "tokens"], reference={}),
        {"gflops_total": 1.0, "payload_bytes": 1.0, "tokens": 1.0},
    )

    def volume(losses):
        return objectives.hypervolume([dict(zip(objectives.names, row, strict=True)) for row in losses])

    gained = [volume([*front, point]) - volume(front) for point in points]
    assert improvement(front, points) == pytest.approx(np.mean(gained), abs=1e-9)


def test_points_beyond_the_reference_gain_nothing():
    assert improvement(np.empty((0, 2)), np.array([[1.0, 0.0]])) == 0
    assert improvement(np.empty((0, 2)), np.array([[0.5, 0.5]])) == pytest.approx(0.25)


def test_proposals_repeat_and_lie_in_the_space():
    for seed in range(3):
        first, again = proposal(study_of(RIDGE), seed), proposal(study_of(RIDGE), seed)
        assert first == again
        assert 0 <= first["share_0"] <= 2
        assert first["codec"] in {"a", "b", "c"}
    assert len({str(proposal(study_of(RIDGE), seed)) for seed in range(6)}) > 1


def test_what_breaks_a_limit_is_avoided():
    limited = [(share, codec, q, size, share - 1.0) for share, codec, q, size, _ in RIDGE]
    found = [proposal(study_of(limited), seed)["share_0"] for seed in range(6)]
    assert np.median(found) <= 1.05
    free = [proposal(study_of(RIDGE), seed)["share_0"] for seed in range(6)]
    assert np.median(free) > np.median(found)


def test_with_too_little_to_learn_from_it_draws_at_random():
    assert 0 <= proposal(study_of(RIDGE[:2]))["share_0"] <= 2


def test_choices_become_one_column_each():
    assert encoded({"share_0": 0.5, "codec": "b"}, SPACE).tolist() == [0.25, 0.0, 1.0, 0.0]


def test_a_search_with_choices_and_limits_runs(tmp_path):
    _, records = searched(
        tmp_path,
        sampler="gp_screened",
        trials=9,
        warm_start=3,
        choices={"codec": ["float16", {"name": "uniform", "bits": 6}]},
        constraints=[{"metric": "tokens", "at_most": 40}],
    )
    assert len(records) == 9
