import pytest
from search_spaces import small

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.search.sampling.samplers import van_der_corput
from leakgauge.harness.search.sampling.schedule import TrialSchedule


def test_per_layer_shares_follow_the_cut():
    schedule = TrialSchedule(small(choices={"cut": [1, 3]}), cut=2)
    assert schedule.share_names == ["share_0", "share_1", "share_2"]
    params = {"share_0": 0.1, "share_1": 0.2, "share_2": 0.3, "cut": 1}
    assert schedule.candidate(params).shares == (0.1,)
    assert schedule.candidate({**params, "cut": 3}).shares == (0.1, 0.2, 0.3)


def test_shared_and_parametric_schedules():
    assert TrialSchedule(small(schedule="shared"), 3).candidate({"share": 0.4}).shares == (0.4,) * 3
    line = TrialSchedule(small(schedule="parametric"), 3).candidate({"share_start": 0.2, "share_end": 0.6})
    assert line.shares == pytest.approx((0.2, 0.4, 0.6))
    with pytest.raises(ConfigError, match="two blocks"):
        TrialSchedule(small(schedule="parametric"), 1)
    with pytest.raises(ConfigError, match="no line"):
        TrialSchedule(small(schedule="shared"), 3).line(0.1, 0.2, 0)


def test_the_warm_start_spans_the_range_and_goes_round_the_choices():
    space = small(share={"low": 0.2, "high": 0.8}, choices={"codec": ["float16", "float32"]})
    points = TrialSchedule(space, 2).warm_start(4)
    assert [point["share_0"] for point in points] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert [point["codec"] for point in points] == ["float16", "float32"] * 2
    assert TrialSchedule(space, 2).warm_start(0) == []


def test_choices_of_one_are_no_dimension():
    space = small(choices={"codec": [{"name": "uniform", "bits": 6}]})
    schedule = TrialSchedule(space, 2)
    assert list(schedule.distributions()) == ["share_0", "share_1"]
    assert schedule.candidate({"share_0": 0.0, "share_1": 0.0}).codec == space.choices.codec[0]


def test_the_sweep_grows_ever_finer():
    places = [van_der_corput(i) for i in range(17)]
    assert places[:5] == [0.0, 1.0, 0.5, 0.25, 0.75]
    assert sorted(places) == [i / 16 for i in range(17)]
