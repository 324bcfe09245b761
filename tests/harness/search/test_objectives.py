import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from search_spaces import small

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.search.objectives import Objectives, non_dominated, violations
from leakgauge.harness.search.space import Constraint

UNDEFENDED = {"quality": 0.8, "gflops_total": 2.0, "payload_bytes": 1000.0, "leakage": 8.0}


def objectives(*names, **reference) -> Objectives:
    return Objectives(small(objectives=list(names), reference=reference), UNDEFENDED)


def point(quality=0.8, gflops=2.0, size=1000.0):
    return {"quality": quality, "gflops_total": gflops, "payload_bytes": size}


def test_hypervolume_of_hand_made_fronts():
    both = objectives("gflops_total", "payload_bytes")
    assert both.hypervolume([]) == 0
    assert both.hypervolume([point()]) == 0
    assert both.hypervolume([point(gflops=1.0, size=500.0)]) == pytest.approx(0.25)
    front = [point(gflops=0.5, size=750.0), point(gflops=1.5, size=250.0)]
    assert both.hypervolume(front) == pytest.approx(0.75 * 0.25 + 0.25 * 0.75 - 0.25 * 0.25)
    assert both.hypervolume([*front, point(gflops=1.6, size=800.0)]) == both.hypervolume(front)
    assert both.hypervolume([*front, point(gflops=3.0, size=1.0)]) == both.hypervolume(front)


def test_quality_counts_from_its_reference_towards_one():
    one = objectives("quality", "payload_bytes", quality=0.6)
    assert one.hypervolume([point(quality=0.8, size=500.0)]) == pytest.approx(0.5 * 0.5)
    assert objectives("quality").reference == {"quality": pytest.approx(0.72)}


def test_one_objective():
    one = objectives("payload_bytes")
    assert one.hypervolume([point(size=400.0), point(size=700.0)]) == pytest.approx(0.6)


def test_three_objectives():
    three = objectives("quality", "gflops_total", "payload_bytes", quality=0.5)
    assert three.hypervolume([point(0.75, 1.0, 500.0)]) == pytest.approx(0.125)


def test_a_reference_that_leaves_no_room_is_refused():
    with pytest.raises(ConfigError, match="leaves no room"):
        objectives("quality", quality=1.0)


def test_violations_are_in_the_metric_s_unit():
    limits = [
        Constraint(metric="quality", drop_at_most=0.01),
        Constraint(metric="payload_bytes", at_most=900),
        Constraint(metric="quality", at_least=0.5),
    ]
    found = violations(limits, point(quality=0.85), quality_base=0.9)
    assert found == {
        "quality drop_at_most": pytest.approx(0.04),
        "payload_bytes at_most": pytest.approx(100),
        "quality at_least": pytest.approx(-0.35),
    }


@given(arrays(np.float64, st.tuples(st.integers(0, 12), st.integers(1, 4)), elements=st.integers(0, 5).map(float)))
def test_non_dominated_rows_are_those_that_nothing_beats(losses):
    kept = non_dominated(losses)
    for i, row in enumerate(losses):
        beaten = any((other <= row).all() and (other < row).any() for other in losses)
        if kept[i]:
            assert not beaten
        else:
            assert beaten or (losses[:i] == row).all(axis=1).any()
    if len(losses):
        assert kept.any()


def test_what_is_not_known_is_on_no_front():
    losses = np.array([[0.2, 0.9], [np.nan, 0.1], [0.9, 0.2], [0.1, np.nan], [0.3, 0.95]])
    assert non_dominated(losses).tolist() == [True, False, True, False, False]
