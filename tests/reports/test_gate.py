"""The gate passes what did not change, catches what leaks more, and cannot tell where nothing is known."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from simulated_runs import SCRIPT, Simulation, simulated, suite_of
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.harness.errors import ConfigError, StoreError
from leakgauge.reports.analysis.measures import measure_of
from leakgauge.reports.gate.baseline import baseline_of, read_baseline, write_baseline
from leakgauge.reports.gate.gate import Check, _adjusted, judge
from leakgauge.reports.gate.limits import Limits, parse_limits
from leakgauge.reports.gate.output import gate_json, gate_junit, gate_markdown, headline


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return baseline_of(simulated(tmp_path_factory.mktemp("base") / "run"))


def outcome(tmp_path, baseline, limits=None, **changes):
    return judge(simulated(tmp_path / "run", **changes), baseline, limits or Limits())


def whys(gate):
    return " | ".join(check.why for check in gate.checks if check.outcome == "cannot tell")


def test_the_very_same_run_passes(tmp_path, base):
    gate = outcome(tmp_path, base)
    assert gate.outcome == "pass"
    assert gate.exit_code == 0
    assert len(gate.checks) == 2 * 9
    assert not gate.notes


@pytest.mark.parametrize("seed", range(1, 13))
def test_another_seed_passes(tmp_path, base, seed):
    assert outcome(tmp_path, base, seed=seed).outcome == "pass"


@pytest.mark.parametrize("seed", range(1, 7))
def test_more_leakage_is_caught(tmp_path, base, seed):
    gate = outcome(tmp_path, base, seed=seed, shift=1.0)
    assert gate.exit_code == 1
    exceeded = [check for check in gate.checks if check.outcome == "exceeds"]
    assert {check.said for check in exceeded} == {"leaks more"}
    assert {check.place.partition(",")[0] for check in exceeded} == {"merged"}
    leak = next(check for check in exceeded if check.measure.name == "leakage")
    assert leak.change == pytest.approx(1.0, abs=0.2)
    assert leak.lo > 0.5


def test_less_leakage_passes(tmp_path, base):
    assert outcome(tmp_path, base, shift=-2.0).outcome == "pass"


def test_a_change_about_as_large_as_allowed_cannot_be_told(tmp_path, base):
    gate = outcome(tmp_path, base, shift=0.5, noise=1.0, seed=3)
    assert gate.exit_code == 3
    assert "reaches across the limit" in whys(gate)


def test_an_inconclusive_attack_never_passes(tmp_path, base):
    gate = outcome(tmp_path, base, verdict="inconclusive", shift=-3.0)
    assert gate.exit_code == 3
    assert "inconclusive: sharp: convergence not shown" in whys(gate)
    assert all(check.outcome == "pass" for check in gate.checks if check.measure.kind != "leakage")


def test_an_inconclusive_attack_that_leaks_more_still_leaks_more(tmp_path, base):
    assert outcome(tmp_path, base, verdict="inconclusive", shift=2.0).exit_code == 1


def test_a_lower_bound_that_rises_is_a_rise_and_one_that_does_not_proves_nothing_unless_accepted(tmp_path, base):
    assert outcome(tmp_path / "a", base, verdict="lower bound", shift=2.0).exit_code == 1
    gate = outcome(tmp_path / "b", base, verdict="lower bound")
    assert gate.exit_code == 3
    assert "lower bound: sharp, the strongest here: tokens were merged" in whys(gate)
    accepted = parse_limits({"lower_bounds": "judge"})
    assert outcome(tmp_path / "c", base, accepted, verdict="lower bound", shift=2.0).exit_code == 1
    gate = outcome(tmp_path / "d", base, accepted, verdict="lower bound")
    assert gate.exit_code == 0
    leaking = [check for check in gate.checks if check.measure.kind == "leakage"]
    assert gate.by_lower_bounds == len(leaking) > 0
    assert {check.said for check in leaking} == {"pass (lower bound)"}
    assert "by lower bounds only" in headline(gate)
    assert "by lower bounds only" in gate_markdown(gate)
    hidden = outcome(tmp_path / "e", base, accepted, verdict="lower bound", shift=-4.0)
    assert "hidden better from this attack?" in whys(hidden)
    assert outcome(tmp_path / "f", base, accepted, verdict="inconclusive").exit_code == 3, "not the same word"


def test_the_command_accepts_lower_bounds_on_request_alone(tmp_path, base, capsys):
    run, path = tmp_path / "run", tmp_path / "baseline.json"
    Simulation(verdict="lower bound").write(run)
    write_baseline(base, path)
    arguments = ["gate", str(run), "--baseline", str(path)]
    assert app(arguments, standalone_mode=False) == 3
    assert app([*arguments, "--accept-lower-bounds"], standalone_mode=False) == 0
    assert "pass, by lower bounds only" in " ".join(capsys.readouterr().out.split())


def test_bounds_of_one_budget_may_be_compared_on_request(tmp_path, base):
    limits = parse_limits({"inconclusive": "judge"})
    assert outcome(tmp_path / "a", base, limits, verdict="inconclusive", seed=4).outcome == "pass"
    crippled = outcome(tmp_path / "b", base, limits, verdict="inconclusive", shift=-4.0)
    assert crippled.exit_code == 3
    assert "or a weaker attack?" in whys(crippled)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"n": 20}, "fewer than 30"),
        ({"lpips": False}, "unscored in the run"),
        ({"suite": suite_of(points=["plain"])}, "the run does not hold it"),
        ({"suite": suite_of(points=["plain", "merged", "new"])}, "not in the baseline"),
        ({"suite": suite_of(attacks=["flat", "other"])}, "attacks of the baseline are missing: sharp"),
        ({"suite": suite_of(threat_models=[{"name": "server", "victim": "none"}])}, "grants something else"),
        ({"data": {"task": "toy v2", "victim": "v1", "split_evaluation": "e1"}}, "another task or its version: toy v1"),
        ({"data": {"task": "toy v1", "victim": "v2", "split_evaluation": "e1"}}, "another victim's weights"),
        ({"data": {"task": "toy v1", "victim": "v1", "split_evaluation": "e2"}}, "another evaluation images"),
        ({"status": "running"}, "the run is not complete"),
    ],
)
def test_what_is_not_known_is_not_passed(tmp_path, base, changes, expected):
    gate = outcome(tmp_path, base, **changes)
    assert gate.exit_code == 3
    assert expected in whys(gate)


def test_quality_and_cost_are_watched_too(tmp_path, base):
    quality = outcome(tmp_path / "a", base, quality=0.5)
    assert {c.said for c in quality.checks if c.outcome == "exceeds"} == {"worse quality"}
    cost = outcome(tmp_path / "b", base, payload=420.0)
    assert {c.said for c in cost.checks if c.outcome == "exceeds"} == {"costs more"}
    assert outcome(tmp_path / "c", base, payload=407.0).outcome == "pass"
    assert outcome(tmp_path / "d", base, payload=300.0, quality=0.9).outcome == "pass"


def test_reidentification_is_watched(tmp_path, base):
    gate = outcome(tmp_path, base, reid=0.8)
    assert [c.measure.name for c in gate.checks if c.outcome == "exceeds"] == ["reid_top1", "reid_top1"]


def test_probes_are_watched(tmp_path):
    suite = suite_of(attacks=["flat", "sharp", "asked"])
    base = baseline_of(simulated(tmp_path / "base", suite=suite, probe=0.4))
    assert "probe asked" in base.points[0].measures
    assert outcome(tmp_path / "a", base, suite=suite, probe=0.4).outcome == "pass"
    gate = outcome(tmp_path / "b", base, suite=suite, probe=0.8)
    assert {c.measure.name for c in gate.checks if c.outcome == "exceeds"} == {"probe asked"}


def test_attacks_that_do_not_count_are_left_out(tmp_path):
    suite = suite_of(attacks=["flat", "sharp", "other"])
    run = simulated(tmp_path / "base", suite=suite)
    base = baseline_of(run, ["sharp"])
    assert set(base.points[0].attacks) == {"flat", "sharp"}
    without = outcome(tmp_path / "a", base, suite=suite_of(attacks=["flat", "sharp"]))
    assert without.outcome == "pass"
    with pytest.raises(ConfigError, match=r"no attack 'sharpp'.*did you mean 'sharp'"):
        baseline_of(run, ["sharpp"])


def test_limits_on_single_points_and_absolute_limits(tmp_path, base):
    lenient = parse_limits({"points": {"merged": {"leakage": 2.0, "ssim": 1, "lpips": 1}}})
    assert outcome(tmp_path / "a", base, lenient, shift=1.0).outcome == "pass"
    unchecked = parse_limits({"worse_by": {"leakage": None, "ssim": None, "lpips": None}})
    assert outcome(tmp_path / "b", base, unchecked, shift=9.0).outcome == "pass"
    for bound, code in ((12.0, 0), (4.0, 1), (8.0, 3)):
        limits = parse_limits({"absolute": [{"measure": "leakage", "operating_point": "mer*", "at_most": bound}]})
        assert outcome(tmp_path / str(bound), None, limits).exit_code == code
    least = parse_limits({"absolute": [{"measure": "quality", "at_least": 0.95}]})
    assert outcome(tmp_path / "c", None, least).exit_code == 1
    nowhere = parse_limits({"absolute": [{"measure": "quality", "operating_point": "x*", "at_least": 0.1}]})
    assert outcome(tmp_path / "d", None, nowhere).exit_code == 3
    bounded = parse_limits({"absolute": [{"measure": "leakage", "at_most": 12.0}]})
    assert outcome(tmp_path / "e", None, bounded, verdict="inconclusive").exit_code == 3


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"minimum_image": 3}, "unknown key 'minimum_image'.*did you mean 'minimum_images'"),
        ({"worse_by": {"Leakage": 1}}, "unknown measure 'Leakage'.*did you mean 'leakage'"),
        ({"worse_by": {"leakage": "2 percent"}}, "worse_by"),
        ({"worse_by": {"leakage": -1}}, "greater than or equal to 0"),
        ({"absolute": [{"measure": "leakage"}]}, "give one of at_most, at_least"),
        ({"absolute": [{"measure": "leakage", "at_mist": 2}]}, "unknown key 'at_mist'.*did you mean 'at_most'"),
        ({"inconclusive": "ignore"}, "inconclusive"),
    ],
)
def test_a_typo_in_the_limits_is_named(data, expected):
    with pytest.raises(ConfigError, match=expected):
        parse_limits(data)


def test_limits_of_no_known_point_and_nothing_to_check(tmp_path, base):
    with pytest.raises(ConfigError, match=r"no operating point 'merge'.*did you mean 'merged'"):
        outcome(tmp_path / "a", base, parse_limits({"points": {"merge": {"leakage": 1}}}))
    # Only the run knows what metrics of its own it has.
    with pytest.raises(ConfigError, match=r"unknown measure 'leakge'.*did you mean 'leakage'"):
        outcome(tmp_path / "c", base, parse_limits({"worse_by": {"leakge": 1}}))
    with pytest.raises(ConfigError, match="nothing to check"):
        outcome(tmp_path / "b", None)


def test_the_baseline_file_round_trips_line_by_line(tmp_path, base):
    path = tmp_path / "base.json"
    write_baseline(base, path)
    assert read_baseline(path) == base
    lines = path.read_text().splitlines()
    assert sum('"leakage": {"mean"' in line for line in lines) == 2
    json.loads(path.read_text())
    write_baseline(read_baseline(path), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{", "no JSON"), ("[]", "version None is unknown"), ('{"schema_version": 9}', "version 9 is unknown")],
)
def test_no_baseline_is_said_so(tmp_path, text, expected):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(StoreError, match=expected):
        read_baseline(tmp_path / "b.json")
    with pytest.raises(StoreError, match="cannot read"):
        read_baseline(tmp_path / "none.json")


def test_an_incomplete_run_is_no_baseline(tmp_path):
    with pytest.raises(StoreError, match="not complete"):
        baseline_of(simulated(tmp_path / "run", status="running"))


def test_what_is_written_says_what_failed(tmp_path, base):
    suite = suite_of(points=["plain"], attacks=["flat", {"label": "sharp", "plugin": {"name": SCRIPT}}])
    gate = outcome(tmp_path, base, suite=suite, shift=1.0)
    markdown = gate_markdown(gate)
    assert any(SCRIPT in note for note in gate.notes)
    assert SCRIPT not in markdown
    assert "the run does not hold it" in markdown
    assert "cannot tell" in headline(gate)
    tree = ElementTree.fromstring(gate_junit(gate))
    assert tree.get("errors") == str(sum(c.outcome == "cannot tell" for c in gate.checks))
    assert len(tree.findall(".//testcase")) == len(gate.checks)
    data = json.loads(gate_json(gate))
    assert data["exit_code"] == 3
    assert any(check["base"] is None for check in data["checks"])


def test_the_command_line(tmp_path):
    for name, shift in (("base", 0.0), ("worse", 2.0)):
        Simulation(shift=shift).write(tmp_path / name)
    runner, file = CliRunner(), tmp_path / "b.json"
    written = runner.invoke(app, ["baseline", str(tmp_path / "base"), "--out", str(file)])
    assert written.exit_code == 0, written.output
    same = runner.invoke(app, ["gate", str(tmp_path / "base"), "--baseline", str(file)])
    assert same.exit_code == 0, same.output
    assert "pass" in same.output
    outputs = [f"--{kind}={tmp_path / 'out' / kind}" for kind in ("junit", "json", "markdown")]
    worse = runner.invoke(app, ["gate", str(tmp_path / "worse"), "--baseline", str(file), *outputs])
    assert worse.exit_code == 1
    assert "leaks more" in worse.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["json", "junit", "markdown"]


def test_what_stands_out_alone_may_not_among_many_checks():
    beyond = Check("here", measure_of("leakage"), "at most 0.5 higher", "exceeds", p=0.01)
    others = [Check("there", measure_of("leakage"), "at most 0.5 higher", "pass", p=0.6)] * 9
    assert [c.outcome for c in _adjusted([beyond])] == ["exceeds"]
    among_ten = list(_adjusted([beyond, *others]))
    assert among_ten[0].outcome == "cannot tell"
    assert among_ten[0].p == pytest.approx(0.1)
    assert "as many checks" in among_ten[0].why
    assert {c.outcome for c in among_ten[1:]} == {"pass"}


def test_no_check_at_all_is_no_pass(tmp_path, base):
    nothing = parse_limits({"worse_by": dict.fromkeys(["leakage", "ssim", "lpips", "reid_top1", "probe *"])})
    costs = ("quality", "payload_bytes", "side_bytes", "channel_uses", "gflops_total")
    nothing = nothing.model_copy(update={"worse_by": {**nothing.worse_by, **dict.fromkeys(costs)}})
    gate = outcome(tmp_path, base, nothing)
    assert not gate.checks
    assert gate.exit_code == 3
