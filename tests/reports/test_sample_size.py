"""How many images would tell: in closed form, by simulation, and in what the gate says."""

from __future__ import annotations

import json
import math
from statistics import NormalDist

import numpy as np
import pytest
from simulated_runs import Simulation, simulated

from leakgauge.harness.scoring.statistics import bootstrap_streams, mean_interval
from leakgauge.reports.gate.baseline import baseline_of
from leakgauge.reports.gate.gate import judge
from leakgauge.reports.gate.limits import Limits
from leakgauge.reports.gate.output import gate_json
from leakgauge.reports.gate.sample_size import MOST, advice, images_that_stand_out, images_that_tell


def test_twice_as_wide_as_the_distance_takes_four_times_the_images():
    assert images_that_tell(60, 0.3, -0.1, 0.7, 0.5) == 240
    assert images_that_tell(60, 0.7, 0.3, 1.1, 0.5) == 240


def test_the_end_towards_the_limit_counts():
    assert images_that_tell(100, 0.0, -9.0, 1.0, 0.5) == 400
    assert images_that_tell(100, 1.0, 0.0, 9.0, 0.5) == 400


def test_the_number_is_rounded_up_and_more_than_there_are():
    assert images_that_tell(100, 0.0, -1.0, 0.601, 0.5) == 150
    assert images_that_tell(48, -0.021, -0.081, 0.0501, 0.05) == 49
    assert images_that_tell(123, 0.0, -1.0, 0.5, 0.5) == 130


@pytest.mark.parametrize(
    ("change", "lo", "hi"),
    [(0.5, 0.0, 1.0), (0.499999, 0.0, 1.0), (0.3, math.nan, math.nan), (math.nan, 0.0, 1.0), (0.3, 0.0, math.inf)],
)
def test_where_no_number_would_do_none_is_given(change, lo, hi):
    assert images_that_tell(60, change, lo, hi, 0.5) is None
    assert "hardly any number" in advice(None)
    assert images_that_tell(MOST, 0.4, 0.0, 0.6, 0.5) is None


def test_one_check_of_many_takes_the_images_by_which_its_p_value_falls_far_enough():
    p, checks = 0.02, 10
    needed = images_that_stand_out(100, p, p * checks, 0.05)
    z = NormalDist().inv_cdf(1 - p) * math.sqrt(needed / 100)
    assert checks * (1 - NormalDist().cdf(z)) < 0.05
    z = NormalDist().inv_cdf(1 - p) * math.sqrt((needed - 10) / 100)
    assert checks * (1 - NormalDist().cdf(z)) > 0.05
    for p, adjusted in ((0.0, 0.0), (0.7, 1.0), (math.nan, math.nan)):
        assert images_that_stand_out(100, p, adjusted, 0.05) is None


def test_so_many_images_tell_about_every_second_time_and_twice_as_many_four_in_five():
    """The derivation of the docstring, by simulation; the tolerances are four standard errors."""
    rng, trials, change, limit, spread = np.random.default_rng(0), 4000, 0.3, 0.5, 2.0
    half = 1.96 * spread / math.sqrt(60)
    needed = 60 * (half / (limit - change)) ** 2

    def told(images: float) -> float:
        error = spread / math.sqrt(images)
        return float(np.mean(rng.normal(change, error, trials) + 1.96 * error <= limit))

    assert told(needed) == pytest.approx(0.5, abs=0.032)
    assert told(2 * needed) == pytest.approx(0.79, abs=0.026)


def test_intervals_of_the_gate_narrow_as_the_rule_says():
    rng = np.random.default_rng(1)
    values, groups = rng.normal(0.3, 2.0, 6000), np.arange(6000)
    few = mean_interval(values[:300], groups[:300], bootstrap_streams(0))
    needed = images_that_tell(300, few.mean, few.lo, few.hi, few.mean + 0.1)
    many = mean_interval(values[:needed], groups[:needed], bootstrap_streams(0))
    assert many.hi - many.mean == pytest.approx(0.1, rel=0.15)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return baseline_of(simulated(tmp_path_factory.mktemp("base") / "run"))


def test_the_gate_says_how_many_would_tell(tmp_path, base):
    gate = judge(simulated(tmp_path / "run", shift=0.5, noise=1.0, seed=3), base, Limits())
    [check] = [c for c in gate.checks if c.outcome == "cannot tell" and c.measure.name == "leakage"]
    assert check.n == 60
    assert check.images_needed == images_that_tell(60, check.change, check.lo, check.hi, 0.5)
    assert check.why.endswith(f"; {advice(check.images_needed)}")
    [told] = [c for c in json.loads(gate_json(gate))["checks"] if c["why"] == check.why]
    assert told["images_needed"] == check.images_needed


def test_more_images_are_no_way_out_of_an_attack_that_did_not_converge(tmp_path, base):
    gate = judge(simulated(tmp_path / "run", verdict="inconclusive"), base, Limits())
    inconclusive = [check for check in gate.checks if check.outcome == "cannot tell"]
    assert inconclusive
    assert all(check.why.endswith("more evaluation images cannot tell") for check in inconclusive)
    assert all(check.images_needed is None for check in inconclusive)


def test_too_few_for_the_limits_says_the_least(tmp_path, base):
    gate = judge(simulated(tmp_path / "run"), base, Limits(minimum_images=100))
    assert {check.images_needed for check in gate.checks if check.outcome == "cannot tell"} == {100}


def test_what_is_told_needs_no_more(tmp_path, base):
    gate = judge(simulated(tmp_path / "run"), base, Limits())
    assert {check.images_needed for check in gate.checks} == {None}
    assert Simulation.n in {check.n for check in gate.checks}
