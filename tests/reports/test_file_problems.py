"""Limits and baselines say all that is wrong with them at once: the line, the key that was found, what was meant."""

from __future__ import annotations

import json

import pytest

from leakgauge.harness.errors import ConfigError, LeakgaugeError, StoreError
from leakgauge.harness.search.results.front import read_front
from leakgauge.reports.gate.baseline import (
    BASELINE_VERSION,
    Baseline,
    BaselinePoint,
    Recorded,
    read_baseline,
    write_baseline,
)
from leakgauge.reports.gate.limits import parse_limits, read_limits

LIMITS = """\
minimum_images: 30
worse_by:
  leakage: 0.5
points:
  half: {lpips: 2 %}
absolute:
  - {measure: leakage, at_most: 9}
  - {measure: quality, at_least: 0.5}
inconclusive: judge
"""


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # long paths give way to what was found there


@pytest.fixture
def baseline(tmp_path):
    """Returns the text of a baseline of one operating point."""
    point = BaselinePoint(
        operating_point="half",
        channel="ideal",
        threat_model="server",
        options={},
        grants={},
        attacks={"ridge": "ridge"},
        verdict="conclusive",
        reason="",
        measures={"leakage": Recorded(mean=1.5, images=(1.0, 2.0)), "payload_bytes": Recorded(mean=10)},
    )
    whole = Baseline(suite="s", commit="c", data={"task": "t"}, seeds=(0,), images=("a", "b"), points=(point,))
    write_baseline(whole, tmp_path / "b.json")
    assert read_baseline(tmp_path / "b.json") == whole
    return (tmp_path / "b.json").read_text()


def said(path, text, read):
    path.write_text(text)
    with pytest.raises(LeakgaugeError) as caught:
        read(type(path)(path.name))
    lines = str(caught.value).splitlines()
    assert all(len(line) <= 200 for line in lines)
    return caught.value, [line.strip() for line in lines]


def changed(text, *changes):
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def line_of(text, part):
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            ("minimum_images", "minimum_image"),
            "l.yaml:1: minimum_image: unknown key 'minimum_image' (did you mean 'min",
        ),
        (("leakage: 0.5", "leakage: -1"), "l.yaml:3: worse_by.leakage.value: Input should be greater than or equal"),
        (("leakage: 0.5", "Leakage: 1"), "l.yaml:3: worse_by.Leakage: unknown measure 'Leakage' (did you mean 'leaka"),
        (("2 %", "2 percent"), "l.yaml:5: points.half.lpips: '2 percent' is no amount such as 0.5 or 2 %"),
        (
            ("measure: leakage", "mesure: leakage"),
            "l.yaml:7: absolute.0.mesure: unknown key 'mesure' (did you mean 'me",
        ),
        (("measure: quality, ", ""), "l.yaml:8: absolute.1: no key 'measure'; found 'at_least' -- add `measure: ...`"),
        (("judge", "jugde"), "l.yaml:9: inconclusive: unknown 'jugde' (did you mean 'judge'?)"),
        (("  leakage: 0.5", "  leakage: [0.5"), "l.yaml:4: not valid YAML"),
    ],
)
def test_a_problem_of_limits_is_one_line_with_its_place(tmp_path, change, wanted):
    error, (line,) = said(tmp_path / "l.yaml", changed(LIMITS, change), read_limits)
    assert line.startswith(wanted)
    assert isinstance(error, ConfigError)


def test_all_problems_of_limits_come_at_once_in_their_order(tmp_path):
    changes = [("judge", "jugde"), ("minimum_images", "minimum_image"), ("at_most", "at_mist")]
    _, lines = said(tmp_path / "l.yaml", changed(LIMITS, *changes), read_limits)
    assert lines[0] == "l.yaml: 3 problems -- mend these"
    assert [line.split(": ")[0] for line in lines[1:]] == ["l.yaml:1", "l.yaml:7", "l.yaml:9"]
    with pytest.raises(ConfigError, match=r"^limits: 2 problems"):
        parse_limits({"minimum_image": 3, "inconclusive": "jugde"})


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ('"suite"', '"siute"', "siute: unknown key 'siute' (did you mean 'suite'?)"),
        ('"measures"', '"measurse"', "points.0.measurse: unknown key 'measurse' (did you mean 'measures'?)"),
        ('"leakage"', '"Leakage"', "points.0.measures.Leakage: unknown measure 'Leakage' (did you mean 'leakage'?)"),
        ('"payload_bytes": {"mean"', '"payload_bytes": {"maen"', "points.0.measures.payload_bytes.maen: unknown key"),
        ('"seeds": [0]', '"seeds": ["x"]', "seeds.0: Input should be a valid integer"),
    ],
)
def test_a_problem_of_a_baseline_is_one_line_with_its_place(tmp_path, baseline, old, new, wanted):
    text = changed(baseline, (old, new))
    error, (line,) = said(tmp_path / "b.json", text, read_baseline)
    assert line.startswith(f"b.json:{line_of(text, new)}: {wanted}")
    assert line.endswith("write it again with `leakgauge baseline RUN`")
    assert isinstance(error, StoreError)


def test_all_problems_of_a_baseline_come_at_once(tmp_path, baseline):
    text = changed(baseline, ('"suite"', '"siute"'), ('"verdict": ', '"verdict": 3, "wrong": '))
    error, lines = said(tmp_path / "b.json", text, read_baseline)
    assert lines[0] == "b.json: 3 problems -- write it again with `leakgauge baseline RUN`"
    places = [line.split(": ")[0] for line in lines[1:]]
    verdict = f"b.json:{line_of(text, 'verdict')}"
    assert places == [f"b.json:{line_of(text, 'siute')}", verdict, verdict]
    assert isinstance(error, StoreError)


def test_a_file_of_another_kind_is_told_briefly(tmp_path):
    points = [{"x": number} for number in range(500)]
    text = json.dumps({"schema_version": BASELINE_VERSION, "points": points}, indent=1)
    _, lines = said(tmp_path / "b.json", text, read_baseline)
    assert len(lines) == 21
    assert lines[0].startswith("b.json: more than 20 problems, the first of them -- ")


@pytest.mark.parametrize("read", [read_baseline, read_front])
def test_a_version_under_another_name_is_said_so(tmp_path, read):
    _, (line,) = said(tmp_path / "v.json", '{\n"schema_versoin": 2}', read)
    assert line.startswith("v.json:2: no ")
    assert "no key 'schema_version'; found 'schema_versoin' (did you mean 'schema_version'?)" in line
