"""The verdict on an operating point is that of its strongest attack, unless another could still overtake it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated_runs import simulated, suite_of

from leakgauge.harness.values.learning_curve import UNKNOWN_GAIN_DB
from leakgauge.reports.analysis.measures import measured
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import Setting
from leakgauge.reports.analysis.summary import summarise
from leakgauge.reports.analysis.verdicts.point_verdict import GIVEN_WHOLE, NOT_ATTACKED, verdict_of
from leakgauge.reports.comparison.compare import compare
from leakgauge.reports.gate.baseline import baseline_of
from leakgauge.reports.gate.gate import judge
from leakgauge.reports.gate.limits import parse_limits
from leakgauge.reports.tables.tables import points_grid
from leakgauge.reports.writers.first_screen import first_screen

HERE = Setting("ideal", "server")
SLOW = "convergence not shown: twice the steps gain +0.80 dB"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    suite = suite_of(attacks=["flat", "cascade", "set_decoder", "asked"])
    return simulated(tmp_path_factory.mktemp("verdicts") / "run", suite=suite, probe=0.5)


def cell(attack, psnr_db, verdict="conclusive", *, gain=np.nan, seed=0, status="done"):
    reason = {"conclusive": "", "lower bound": "it cannot find positions"}.get(verdict, SLOW)
    row = {"attack": attack, "psnr_db": psnr_db, "verdict": verdict, "status": status, "reason": reason}
    return {**row, "could_gain_db": gain, "seed": seed, "leakage": psnr_db - 10.0}


FLOOR = cell("flat", 10.0)
STRONG = cell("cascade", 25.0)


def test_a_crippled_attacker_beside_a_strong_one_changes_nothing(run):
    crippled = cell("set_decoder", 17.0, "inconclusive", gain=6.0)
    assert verdict_of(run, [FLOOR, STRONG, crippled]) == ("conclusive", "")
    assert verdict_of(run, [FLOOR, crippled, STRONG]) == ("conclusive", "")
    bound = cell("cascade", 25.0, "lower bound")
    assert verdict_of(run, [FLOOR, bound, crippled]).verdict == "lower bound"


def test_one_that_could_overtake_makes_it_inconclusive_and_says_by_how_much(run):
    close = cell("set_decoder", 24.0, "inconclusive", gain=2.4)
    found = verdict_of(run, [FLOOR, STRONG, close])
    assert found.verdict == "inconclusive"
    assert found.reason == (
        "set_decoder at 24.0 dB could still gain 2.4 dB, more than the 1.0 dB that cascade is ahead: " + SLOW
    )
    assert verdict_of(run, [FLOOR, STRONG, {**close, "could_gain_db": 0.9}]).verdict == "conclusive"
    assert verdict_of(run, [FLOOR, cell("cascade", 25.0, "lower bound"), close]).verdict == "inconclusive"
    assert verdict_of(run, [FLOOR, STRONG, {**close, "verdict": "conclusive"}]).verdict == "conclusive"


@pytest.mark.parametrize(("behind", "verdict"), [(0.1, "inconclusive"), (-0.1, "conclusive")])
def test_what_is_not_known_is_taken_as_a_constant(run, behind, verdict):
    searching = cell("set_decoder", 25.0 - UNKNOWN_GAIN_DB + behind, "inconclusive")
    found = verdict_of(run, [FLOOR, STRONG, searching])
    assert found.verdict == verdict
    assert ("an unknown amount, taken as 3.0 dB" in found.reason) == (verdict == "inconclusive")
    del searching["could_gain_db"]
    assert verdict_of(run, [FLOOR, STRONG, searching]).verdict == verdict


def test_the_strongest_that_is_not_converged_is_named_with_its_reason(run):
    found = verdict_of(run, [FLOOR, cell("cascade", 25.0, "inconclusive", gain=0.1), cell("set_decoder", 20.0)])
    assert found == ("inconclusive", f"cascade: {SLOW}")


def test_strength_and_what_may_be_gained_are_means_over_seeds(run):
    strong = [cell("cascade", 24.0), cell("cascade", 26.0, seed=1)]
    # Each seed alone overtakes one of the other's; together they are 2 dB behind and may gain 1.5 dB.
    other = [
        cell("set_decoder", 22.0, "inconclusive", gain=3.0),
        cell("set_decoder", 24.0, "conclusive", gain=np.nan, seed=1),
    ]
    assert verdict_of(run, [*strong, *other]).verdict == "conclusive"
    nearer = [{**one, "psnr_db": one["psnr_db"] + 1} for one in other]
    assert "set_decoder at 24.0 dB could still gain 1.5 dB" in verdict_of(run, [*strong, *nearer]).reason
    one_seed = [strong[0], cell("cascade", 26.0, "inconclusive", seed=1)]
    assert verdict_of(run, one_seed).verdict == "inconclusive"


def test_what_failed_or_is_missing_or_unscored_might_have_leaked_more(run):
    failed = cell("set_decoder", np.nan, "inconclusive", status="failed")
    assert "set_decoder: failed" in verdict_of(run, [FLOOR, STRONG, failed]).reason
    missing = {**failed, "status": "not run"}
    assert verdict_of(run, [FLOOR, STRONG, missing]).verdict == "inconclusive"
    assert verdict_of(run, [FLOOR, STRONG, {**failed, "attack": "asked"}]).verdict == "inconclusive"
    unscored = cell("set_decoder", np.nan, "inconclusive")
    assert verdict_of(run, [FLOOR, STRONG, unscored]).verdict == "inconclusive"
    assert verdict_of(run, [FLOOR]) == ("inconclusive", NOT_ATTACKED)


def whole(attack="cascade", lo=40.0, verdict="inconclusive", **changes):
    return {**cell(attack, 44.9, verdict, **changes), "psnr_db_lo": lo}


TOLD = "given away whole: cascade reaches 44.9 dB, and more would change nothing"


@pytest.mark.parametrize(
    ("lo", "verdict"), [(39.999, "inconclusive"), (40.0, "conclusive"), (np.nan, "inconclusive")], ids=str
)
def test_what_is_given_away_whole_needs_no_stronger_attacker(run, lo, verdict):
    """The mean does not do: of a few images the interval may reach below, and one image has none."""
    found = verdict_of(run, [FLOOR, whole(lo=lo)])
    assert found == (verdict, TOLD if verdict == "conclusive" else f"cascade: {SLOW}")
    assert verdict_of(run, [FLOOR, whole(lo=lo, verdict="lower bound")]).verdict == (
        "conclusive" if verdict == "conclusive" else "lower bound"
    )


def test_nothing_leaks_more_than_all(run):
    strong = whole(verdict="conclusive")
    assert verdict_of(run, [FLOOR, strong]) == ("conclusive", ""), "by itself"
    others = {
        "could overtake": cell("set_decoder", 44.0, "inconclusive", gain=9.0),
        "failed": cell("set_decoder", np.nan, "inconclusive", status="failed"),
        "missing": cell("set_decoder", np.nan, "inconclusive", status="not run"),
        "unscored": cell("set_decoder", np.nan, "inconclusive"),
    }
    for other in others.values():
        assert verdict_of(run, [FLOOR, strong, other]) == ("conclusive", TOLD)
        assert verdict_of(run, [FLOOR, {**strong, "psnr_db_lo": 39.9}, other]).verdict == "inconclusive"
    assert verdict_of(run, [whole("flat")]) == ("inconclusive", NOT_ATTACKED), "a floor attacks nothing"


def test_over_seeds_the_lower_ends_count_on_average(run):
    assert verdict_of(run, [FLOOR, whole(lo=39.0), whole(lo=41.2, seed=1)]).verdict == "conclusive"
    assert verdict_of(run, [FLOOR, whole(lo=39.0), whole(lo=40.8, seed=1)]).verdict == "inconclusive"
    assert verdict_of(run, [FLOOR, whole(lo=50.0), whole(lo=np.nan, seed=1)]).verdict == "inconclusive"


def test_the_strongest_alone_gives_it_away(run):
    """A stronger one of wide interval beside it has the say, as in all else."""
    assert verdict_of(run, [FLOOR, {**whole(lo=35.0), "psnr_db": 46.0}, whole("set_decoder")]).verdict == "inconclusive"


def test_a_probe_does_not_speak_of_what_is_rebuilt(run):
    probe = cell("asked", np.nan, "inconclusive")
    assert verdict_of(run, [FLOOR, STRONG, probe]) == ("conclusive", "")
    assert verdict_of(run, [FLOOR, probe]) == ("inconclusive", NOT_ATTACKED)
    assert verdict_of(run, [probe]) == ("inconclusive", f"asked: {SLOW}")
    assert verdict_of(run, [{**probe, "verdict": "conclusive"}]) == ("conclusive", "")


def doubting(run, attack, **changes):
    """A run of which an attack is inconclusive everywhere."""
    cells = run.cells.copy()
    chosen = cells["attack"] == attack
    for name, value in {"verdict": "inconclusive", "reason": SLOW, **changes}.items():
        cells.loc[chosen, name] = value
    return replace(run, cells=cells)


def test_a_gate_on_a_probe_rests_on_the_probe_and_all_else_on_what_is_rebuilt(run):
    base, limits = baseline_of(run), parse_limits({"absolute": [{"measure": "probe asked", "at_most": 0.9}]})
    assert judge(run, base, limits).outcome == "pass"
    unsure = judge(doubting(run, "asked"), base, limits)
    told = {check.measure.name for check in unsure.checks if check.outcome == "cannot tell" and check.measure}
    assert told == {"probe asked"}
    assert sum(check.measure.name == "probe asked" for check in unsure.checks if check.outcome == "cannot tell") == 4
    assert all(f"asked: {SLOW}" in check.why for check in unsure.checks if check.outcome == "cannot tell")
    unsure = judge(doubting(run, "set_decoder", could_gain_db=9.0), base, limits)
    told = {check.measure.name for check in unsure.checks if check.outcome == "cannot tell"}
    assert {"leakage", "ssim", "reid_top1"} <= told
    assert "probe asked" not in told


def test_re_identification_rests_on_the_identity_probes_too(run):
    stated = {**run.manifest["attacks"], "asked": {"plugin": "asked", "kind": "identity", "floor": False}}
    ranked = replace(doubting(run, "asked"), manifest={**run.manifest, "attacks": stated})
    for point in measured(ranked):
        assert point.conclusive
        assert point.resting_on("leakage").conclusive
        for name in ("reid_top1", "judge_reid_top1"):
            assert point.resting_on(name).verdict == "inconclusive"
            assert "asked" in point.resting_on(name).reason
    assert all(point.resting_on("reid_top1").conclusive for point in measured(doubting(run, "asked")))


def test_a_comparison_of_a_probe_rests_on_the_probe(run, tmp_path):
    less = simulated(tmp_path / "less", suite=run.suite, probe=0.1, shift=-3.0)
    found = {
        (row.place.partition(",")[0], row.measure.name): row.outcome
        for row in compare(run, doubting(less, "asked")).rows
    }
    assert found["merged", "leakage"] == "better"
    assert found["merged", "probe asked"] == "not comparable"


CRIPPLED = {"label": "set_decoder", "name": "set_decoder", "steps": 2}


@pytest.fixture(scope="module")
def weaker(run, tmp_path_factory):
    """A run that rebuilds less: its set decoder was crippled, and what is strongest now is conclusive."""
    suite = suite_of(attacks=["flat", "cascade", CRIPPLED, "asked"])
    less = simulated(tmp_path_factory.mktemp("weaker") / "run", suite=suite, probe=0.5, shift=-3.0)
    less = doubting(less, "set_decoder", psnr_db=5.0, could_gain_db=1.0)
    assert all(point.conclusive for point in measured(less))
    return less


def test_a_gate_passes_no_fall_that_a_crippled_attacker_may_be_the_cause_of(run, weaker, tmp_path):
    gate = judge(weaker, baseline_of(run), parse_limits({}))
    why = "much less than in the baseline, and not shown to be converged: set_decoder; a weaker attack?"
    assert {check.place.partition(",")[0] for check in gate.checks if check.why == why} == {"merged"}
    assert gate.outcome == "cannot tell"
    assert judge(weaker, baseline_of(run, ["cascade"]), parse_limits({})).outcome == "pass", "it does not count"
    same = doubting(simulated(tmp_path / "same", suite=run.suite, probe=0.5, shift=-3.0), "set_decoder", psnr_db=5.0)
    same = replace(same, cells=same.cells.assign(could_gain_db=1.0))
    assert judge(same, baseline_of(run), parse_limits({})).outcome == "pass", "as weak as it was in the baseline"
    coded = replace(same, manifest={**same.manifest, "code": {"0": {"leakgauge.attacks": "other"}}})
    assert judge(coded, baseline_of(run), parse_limits({})).outcome == "cannot tell"


def test_a_comparison_claims_no_change_that_a_crippled_attacker_may_be_the_cause_of(run, weaker):
    def of(base, new):
        return {(r.place.partition(",")[0], r.measure.name): r for r in compare(base, new).rows}["merged", "leakage"]

    assert of(run, weaker).why == "measured lower, but not shown to be converged in the new run: set_decoder"
    assert of(weaker, run).why == "measured higher, but not shown to be converged in the base: set_decoder"
    alike = replace(weaker, suite=run.suite)
    assert (of(run, alike).outcome, of(alike, run).outcome) == ("better", "worse")


def given_whole(run, psnr_db):
    cells = doubting(run, "cascade").cells
    cells.loc[cells["attack"] == "cascade", ["psnr_db", "psnr_db_lo"]] = psnr_db, psnr_db - 1.0
    return replace(run, cells=cells)


def test_how_much_of_all_leaks_is_not_compared(run, tmp_path):
    """Points that are given away whole are conclusive, and yet an attacker that still gains bounds decibels only."""
    less = given_whole(simulated(tmp_path / "less", suite=run.suite, probe=0.5, shift=-3.0), 45.0)
    assert {(point.conclusive, point.given_whole) for point in measured(less)} == {(True, True)}
    assert not any(point.given_whole for point in measured(run))

    def of(base, new):
        return {(r.place.partition(",")[0], r.measure.name): r for r in compare(base, new).rows}["merged", "leakage"]

    told = "gives images away whole, and a stronger attack may rebuild more still"
    assert of(run, less).why == f"measured lower, but the new run {told}"
    assert of(less, run).why == f"measured higher, but the base {told}"
    assert of(run, simulated(tmp_path / "same", suite=run.suite, probe=0.5, shift=-3.0)).outcome == "better"


def test_a_gate_accepts_what_is_given_away_whole_but_no_fall_of_other_attackers(run, weaker):
    assert judge(given_whole(run, 45.0), baseline_of(run), parse_limits({})).outcome == "pass"
    gate = judge(given_whole(weaker, 45.0), baseline_of(run), parse_limits({}))
    assert gate.outcome == "cannot tell"
    assert any("not shown to be converged: " in check.why for check in gate.checks)
    cells = given_whole(run, 45.0).cells
    cells.loc[cells["attack"] == "set_decoder", ["status", "reason"]] = "failed", "out of memory"
    failed = replace(run, cells=cells)
    assert all(point.conclusive for point in measured(failed))
    assert judge(failed, baseline_of(run), parse_limits({})).outcome == "cannot tell"
    told = f"{TOLD.replace('44.9', '45.0')}; not measured: set_decoder"
    assert all(any(value.detail == told for value in row) for row in points_grid(failed, point_rows(failed)).rows)


def test_reports_say_that_images_are_given_away_whole(run):
    unsure = given_whole(run, 45.0)
    rows = point_rows(unsure)
    assert {(row["verdict"], row["reason"].partition(":")[0]) for row in rows} == {("conclusive", GIVEN_WHOLE)}
    told = summarise(unsure, rows)
    assert all("Images are given away whole, so that more would change nothing." in said for said in told.baselines)
    assert all("at least" in finding.text for finding in told.findings)
    assert not any("it leaks less" in finding.text or "it leaks more" in finding.text for finding in told.findings)


def test_reports_say_who_could_overtake(run):
    unsure = doubting(run, "set_decoder", could_gain_db=9.0, psnr_db=5.0)
    cells = unsure.cells.copy()
    cells.loc[cells["attack"] == "cascade", "psnr_db"] = 8.0
    unsure = replace(unsure, cells=cells)
    rows = point_rows(unsure)
    said = "set_decoder at 5.0 dB could still gain 9.0 dB, more than the 3.0 dB that cascade is ahead"
    assert all(said in row["reason"] for row in rows)
    assert any(said in value.detail for row in points_grid(unsure, rows).rows for value in row)
    assert all(said in line.reason for part in first_screen(unsure, rows, "r").parts for line in part.lines)
