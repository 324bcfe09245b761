"""Trials that fall behind on a part of the images are given up; what is measured in full is as without rungs."""

from __future__ import annotations

import pytest
from optuna.trial import TrialState
from search_spaces import CPU, prepared, small

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.search.results.output import write_results
from leakgauge.harness.search.study import run_search
from leakgauge.harness.search.trials.trials import finished, tried

SINGLE = {"objectives": ["payload_bytes"], "reference": {}, "trials": 10, "warm_start": 0, "sampler": "random"}


def searched(out, **changes):
    ready = prepared(**{**SINGLE, **changes})
    return ready, run_search(ready, out, CPU, 1, None, lambda done, total: None)


@pytest.mark.slow
def test_trials_that_fall_behind_are_given_up(tmp_path):
    ready, study = searched(tmp_path / "rungs", rungs=[0.25, 0.5])
    given_up = study.get_trials(states=(TrialState.PRUNED,))
    assert 0 < len(given_up) < 10
    assert len(given_up) + len(finished(study)) == 10
    _, whole = searched(tmp_path / "whole")
    metrics = {record.params["share_0"]: record.metrics for record in finished(whole)}
    assert all(record.metrics == metrics[record.params["share_0"]] for record in finished(study))
    best = min(record.metrics["payload_bytes"] for record in finished(whole))
    assert min(record.metrics["payload_bytes"] for record in finished(study)) == best
    assert len(write_results(ready, tried(study), tmp_path / "rungs").points) == 1


def test_a_resumed_search_gives_up_the_same(tmp_path):
    _, whole = searched(tmp_path / "whole", rungs=[0.5])
    searched(tmp_path / "parts", rungs=[0.5], trials=5)
    _, parts = searched(tmp_path / "parts", rungs=[0.5])
    assert [t.state for t in parts.get_trials()] == [t.state for t in whole.get_trials()]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rungs": [0.5], "objectives": ["quality", "tokens"]}, "rungs are for one objective"),
        ({"rungs": [0.5], "objectives": ["latency_ms"]}, "without leakage and latency_ms"),
        ({"rungs": [0.5, 0.25]}, "rungs must rise"),
        ({"rungs": [1.0]}, "less than 1"),
    ],
)
def test_rungs_that_cannot_be(changes, expected):
    with pytest.raises(ConfigError, match=expected):
        small(**{**SINGLE, **changes})
