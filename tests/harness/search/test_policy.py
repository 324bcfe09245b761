import pytest

from leakgauge.harness.errors import ConfigError, StoreError
from leakgauge.harness.search.results.front import Front, read_front, write_front
from leakgauge.harness.search.results.policy import PolicyLimits, choose


def front(*points) -> Front:
    return Front.model_validate(
        {
            "space": "s",
            "task": {"name": "photos"},
            "defense": {"name": "split_pipeline"},
            "quality_name": "accuracy",
            "objectives": ["quality", "payload_bytes"],
            "reference": {},
            "quality_base": 0.9,
            "undefended": {},
            "operating_points": [{"name": name} for name, *_ in points],
            "points": [
                {
                    "name": name,
                    "channel": {"name": "ideal"} if snr is None else {"name": "awgn", "snr_db": snr},
                    "metrics": {"quality": quality, "payload_bytes": size},
                }
                for name, quality, size, snr in points
            ],
        }
    )


PLAIN = front(("big", 0.9, 4000, None), ("mid", 0.8, 2000, None), ("twin", 0.8, 1500, None), ("small", 0.5, 500, None))
NOISY = front(("a", 0.5, 900, 0), ("b", 0.7, 900, 5), ("c", 0.9, 900, 10))


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (PolicyLimits(), "big"),
        (PolicyLimits(most={"payload_bytes": 3999}), "twin"),
        (PolicyLimits(most={"payload_bytes": 500}), "small"),
        (PolicyLimits(min_quality=0.85), "big"),
    ],
)
def test_the_best_quality_within_the_limits_then_fewest_bytes(limits, name):
    assert choose(PLAIN, limits).name == name


@pytest.mark.parametrize(("snr_db", "name"), [(0, "a"), (4.9, "a"), (5, "b"), (7, "b"), (30, "c")])
def test_the_nearest_measured_snr_not_above_the_asked_one(snr_db, name):
    assert choose(NOISY, PolicyLimits(snr_db=snr_db)).name == name


@pytest.mark.parametrize(
    ("points", "limits", "said"),
    [
        (PLAIN, PolicyLimits(most={"payload_bytes": 400}), "the nearest, small, has payload_bytes 500, not 400"),
        (PLAIN, PolicyLimits(most={"payload_bytes": 600}, min_quality=0.6), "small, has quality 0.5, not 0.6"),
        (PLAIN, PolicyLimits(snr_db=5), "on channels without noise"),
        (NOISY, PolicyLimits(snr_db=-1), "at 0 dB and above, not at -1 dB"),
        (NOISY, PolicyLimits(), "give --snr-db"),
        (PLAIN, PolicyLimits(most={"leakage": 1}), "does not say what leakage"),
        (front(), PolicyLimits(), "empty"),
    ],
)
def test_one_line_where_none_qualifies(points, limits, said):
    with pytest.raises(ConfigError) as caught:
        choose(points, limits)
    assert said in str(caught.value)


def test_a_front_survives_its_file(tmp_path):
    write_front(NOISY, tmp_path / "front.json")
    assert read_front(tmp_path / "front.json") == NOISY
    (tmp_path / "other.json").write_text('{"schema_version": 99}')
    for name, said in (("other.json", "version 99"), ("none.json", "No such file")):
        with pytest.raises(StoreError, match=said):
            read_front(tmp_path / name)


NAN = float("nan")
UNKNOWN = front(("blind", 0.99, NAN, None), ("known", 0.8, 2000, None), ("dark", NAN, 10, None))


@pytest.mark.parametrize("most", [{}, {"payload_bytes": 1e9}, {"payload_bytes": float("inf")}])
@pytest.mark.parametrize("least", [None, 0.0, -1.0])
def test_what_was_not_measured_keeps_no_limit(most, least):
    expected = "known" if most else "blind"  # without a limit on bytes, only an unknown quality is out
    assert choose(UNKNOWN, PolicyLimits(most=most, min_quality=least)).name == expected


def test_a_front_of_unknowns_has_no_best_point_and_a_limit_is_a_number():
    with pytest.raises(ConfigError, match="no point qualifies; the nearest, dark, has no known quality"):
        choose(front(("dark", NAN, 10, None)), PolicyLimits())
    with pytest.raises(ConfigError, match="has no known payload_bytes"):
        choose(front(("blind", 0.9, NAN, None)), PolicyLimits(most={"payload_bytes": 1e9}))
    for limits in (PolicyLimits(most={"payload_bytes": NAN}), PolicyLimits(min_quality=NAN), PolicyLimits(snr_db=NAN)):
        with pytest.raises(ConfigError, match="is no number"):
            choose(PLAIN, limits)


@pytest.mark.parametrize(
    "change",
    [
        {"operating_points": []},
        {"operating_points": [{"name": "big"}, {"name": "big"}]},
        {"undefended": {"nonsense": 1.0}},
        {"objectives": ["nonsense"]},
    ],
)
def test_a_front_that_contradicts_itself_is_none(change):
    with pytest.raises(ValueError, match=r"operating point|nonsense"):
        Front.model_validate({**PLAIN.model_dump(), **change})
    for snr_db in ("ten", True, NAN, [1]):
        with pytest.raises(ValueError, match="snr_db"):
            front(("a", 0.5, 900, snr_db))
