"""A run is compared with the strongest that was ever measured on the same exposure, recognised by what it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated_runs import DATA, Simulation, simulated, suite_of

from leakgauge.benchmarks.best_known import entries_of
from leakgauge.harness.run import best_known as known_module
from leakgauge.harness.run.best_known import REFERENCE_DB, Effort
from leakgauge.harness.suite.exposure_content import exposures_of
from leakgauge.reports.analysis.measures import measured
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.analysis.summary import summarise
from leakgauge.reports.analysis.verdicts import best_known as reference_module
from leakgauge.reports.analysis.verdicts.best_known import new_best_known
from leakgauge.reports.comparison.compare import compare
from leakgauge.reports.gate.baseline import baseline_of
from leakgauge.reports.gate.gate import judge
from leakgauge.reports.gate.limits import Limits
from leakgauge.reports.writers.first_screen import first_screen

WHOLE = {**DATA, "split_calibration": "c1", "split_attacker": "a1", "split_search": "s1"}
PLACES = {
    "operating_points": [{"name": "plain"}, {"name": "merged", "reduction": "tome"}],
    "defense": {"name": "split_pipeline", "cut": 3},
}
SUITE = suite_of(**PLACES)
ENDED = "near which an attacker converged"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Simulation(data=WHOLE, suite=SUITE).write(tmp_path_factory.mktemp("known") / "run")


@pytest.fixture(scope="module")
def run(folder):
    return load_runs([folder])[0]


@pytest.fixture
def known(monkeypatch, folder):
    """Sets what is known: what the run reached and so much more, and how much less or more a converged attacker did."""

    def set_(more=0.0, converged="as much", **changes):
        found = {}
        for entry in entries_of(folder):
            psnr = entry.psnr_db + more
            ended = {"as much": psnr, "none": None}.get(converged, converged)
            ended = psnr + converged if isinstance(converged, float) else ended
            update = {"psnr_db": psnr, "converged_db": ended, "attack": "cascade", "steps": 500, **changes}
            found[entry.key] = entry.model_copy(update=update)
        for module in (known_module, reference_module):
            monkeypatch.setattr(module, "best_known", lambda: found)
        return found

    return set_


def verdicts(run):
    rows = point_rows(replace(run))
    return {row["operating_point"]: (row["verdict"], row["reason"]) for row in rows}


def with_verdict(run, verdict, reason="convergence not shown: still gaining"):
    cells = run.cells.copy()
    chosen = cells["attack"] == "sharp"
    cells.loc[chosen, "verdict"], cells.loc[chosen, "reason"] = verdict, reason
    return replace(run, cells=cells)


def test_within_it_a_curve_that_still_rises_is_conclusive_by_reference(run, known):
    known(more=0.3)
    for verdict, reason in verdicts(with_verdict(run, "inconclusive")).values():
        assert verdict == "conclusive"
        assert reason == f"by reference: sharp reaches within 0.3 dB of the best known (cascade, 500 steps), {ENDED}"
    assert verdicts(run)["plain"] == ("conclusive", ""), "by itself"
    known()
    reason = verdicts(with_verdict(run, "inconclusive"))["plain"][1]
    assert reason == f"by reference: sharp reaches no less than the best known (cascade, 500 steps), {ENDED}"


def test_a_lower_bound_stays_one(run, known):
    known(more=0.2)
    bound = with_verdict(run, "lower bound", "it cannot find positions")
    assert {verdict for verdict, _ in verdicts(bound).values()} == {"lower bound"}


def test_far_from_it_even_who_calls_itself_converged_is_inconclusive(run, known):
    known(more=2.1)
    level = run.cells.loc[run.cells["attack"] == "sharp", "psnr_db"].iloc[0] + 2.1
    for one in (run, with_verdict(run, "lower bound", "it cannot find positions")):
        verdict, reason = verdicts(one)["plain"]
        assert verdict == "inconclusive"
        assert reason.startswith(
            f"best known reaches {level:.1f} dB (cascade, 500 steps), 2.1 dB more than anything here"
        )
    said = verdicts(with_verdict(run, "inconclusive"))["plain"][1]
    assert said.endswith("; sharp: convergence not shown: still gaining")


def test_a_wide_interval_excuses_no_weak_attacker_nor_a_decibel_a_clear_difference(run, known):
    cells = run.cells.copy()
    cells["psnr_db_hi"] = cells["psnr_db"] + 5.0
    wide = with_verdict(replace(run, cells=cells), "inconclusive")
    known(more=REFERENCE_DB - 0.1)
    assert verdicts(wide)["plain"][0] == "conclusive"
    known(more=REFERENCE_DB + 0.1)
    assert "1.1 dB more than anything here" in verdicts(wide)["plain"][1]
    cells["psnr_db_hi"] = cells["psnr_db"] + 0.1
    known(more=0.5)
    assert verdicts(replace(run, cells=cells))["plain"][0] == "inconclusive"


def test_only_a_converged_attacker_vouches(run, known):
    """A suite whose attackers are all cut short knows no more of itself by having written itself down."""
    rising = with_verdict(run, "inconclusive")
    known(converged="none")
    assert verdicts(rising)["plain"] == ("inconclusive", "sharp: convergence not shown: still gaining")
    known(converged=-0.5)
    assert verdicts(rising)["plain"][0] == "conclusive", "as near as convergence tells"
    known(converged=-0.7)
    assert verdicts(rising)["plain"][0] == "inconclusive"


def effort(entry, less, seconds, **options):
    """What an attacker took that came within so many dB of what is known."""
    said = {"psnr_db": entry.psnr_db - less, "attack_seconds": seconds, "options": {"name": "cascade", **options}}
    return Effort(attack="cascade", seeds=(0,), commit="c0ffee", **said)


def spending(run, seconds):
    return with_verdict(replace(run, cells=run.cells.assign(attack_seconds=seconds)), "inconclusive")


def with_efforts(found, *efforts):
    """Puts efforts into what is known: how many dB less each reached, the seconds, and options that tell it apart."""
    for key, entry in list(found.items()):
        made = tuple(effort(entry, less, seconds, steps=n) for n, (less, seconds) in enumerate(efforts))
        found[key] = entry.model_copy(update={"efforts": made})


@pytest.mark.parametrize(
    ("efforts", "verdict"),
    [
        ([(0.0, 39.0)], "inconclusive"),
        ([(0.0, 41.0)], "conclusive"),
        ([(0.0, 21.0), (0.9, 20.0)], "conclusive"),
        ([(0.0, 21.0), (1.1, 20.0)], "inconclusive"),
    ],
    ids=["3.9 times", "4.1 times", "together", "one is not near"],
)
def test_much_more_effort_that_found_no_more_vouches_too(run, known, efforts, verdict):
    with_efforts(known(more=0.3, converged="none"), *efforts)
    found = verdicts(spending(run, 10.0))["plain"]
    assert found[0] == verdict
    told = "by reference: sharp reaches within 0.3 dB of the best known (cascade, 500 steps), "
    assert (found[1] == f"{told}near which others spent 4.1 times its effort") == (verdict == "conclusive")


def test_near_is_near_the_strongest_ever_this_run_included(run, known):
    rising = spending(run, 10.0)
    with_efforts(known(more=-0.3, converged="none"), (0.0, 41.0))
    assert verdicts(rising)["plain"][0] == "conclusive"
    with_efforts(known(more=-0.3, converged="none"), (0.8, 41.0))
    assert verdicts(rising)["plain"][0] == "inconclusive", "it was near what was known, but is beaten by 1.1 dB"
    with_efforts(known(more=-1.5, converged="none"), (0.0, 4100.0))
    assert verdicts(rising)["plain"][0] == "inconclusive"


def test_effort_vouches_neither_for_itself_nor_where_seconds_are_unknown(run, known):
    found = known(converged="none")
    for key, entry in found.items():
        itself = effort(entry, 0.0, 4000.0).model_copy(update={"options": {"name": "sharp"}, "attack": "other label"})
        found[key] = entry.model_copy(update={"efforts": (itself, effort(entry, 0.0, 39.0))})
    assert verdicts(spending(run, 10.0))["plain"][0] == "inconclusive"
    assert verdicts(spending(run, 9.0))["plain"][0] == "conclusive", "by what others took"
    for unknown in (float("nan"), 0.0):
        assert verdicts(spending(run, unknown))["plain"][0] == "inconclusive"
    assert verdicts(with_verdict(run, "inconclusive"))["plain"][0] == "inconclusive", "a run without such a column"


def test_effort_excuses_nobody_who_is_far_nor_a_lower_bound(run, known):
    with_efforts(known(more=2.0, converged="none"), (0.0, 4000.0))
    assert verdicts(spending(run, 10.0))["plain"][0] == "inconclusive"
    with_efforts(known(more=0.3, converged="none"), (0.0, 4000.0))
    bound = with_verdict(spending(run, 10.0), "lower bound", "it cannot find positions")
    assert verdicts(bound)["plain"][0] == "lower bound"


def test_given_away_whole_comes_before_the_best_known(run, known):
    known(more=30.0)
    cells = run.cells.copy()
    cells.loc[cells["attack"] == "sharp", ["psnr_db", "psnr_db_lo", "psnr_db_hi"]] = 45.0, 44.0, 46.0
    whole = with_verdict(replace(run, cells=cells), "inconclusive")
    told = "given away whole: sharp reaches 45.0 dB, and more would change nothing"
    assert set(verdicts(whole).values()) == {("conclusive", told)}


def test_what_was_just_beaten_vouches_for_nothing(run, known):
    known(more=-1.5)
    assert verdicts(with_verdict(run, "inconclusive"))["plain"][0] == "inconclusive"


def test_who_could_overtake_is_answered_by_the_reference(tmp_path, known):
    suite = suite_of(attacks=["flat", "sharp", "other"], **PLACES)
    run = simulated(tmp_path / "run", data=WHOLE, suite=suite)
    cells = run.cells.copy()
    weaker = cells.groupby("attack")["psnr_db"].mean().drop("flat").idxmin()
    cells.loc[cells["attack"] == weaker, ["verdict", "could_gain_db"]] = "inconclusive", 2.0
    run = replace(run, cells=cells)
    assert "could still gain 2.0 dB" in verdicts(run)["plain"][1]
    known(more=0.2)
    assert verdicts(replace(run))["plain"][0] == "conclusive"
    cells.loc[(cells["attack"] != weaker) & (cells["attack"] != "flat"), "verdict"] = "lower bound"
    assert verdicts(replace(run, cells=cells))["plain"][0] == "lower bound"


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {**WHOLE, "victim": "v2"}},
        {"data": {**WHOLE, "split_evaluation": "e2"}},
        {"data": {**WHOLE, "split_attacker": "a2"}},
        {"data": {**WHOLE, "task": "toy v2"}},
        {"data": dict(DATA)},
        {"suite": suite_of(**PLACES | {"defense": {"name": "split_pipeline", "cut": 4}})},
        {"suite": suite_of(**PLACES, threat_models=[{"name": "server", "auxiliary": {"n": 9}}])},
        {"suite": suite_of(**PLACES, channels=[{"label": "ideal", "name": "awgn", "snr_db": 3}])},
    ],
    ids=["victim", "images", "attacker's images", "task", "old run", "defense", "threat model", "channel"],
)
def test_of_another_exposure_by_the_same_name_nothing_is_known(tmp_path, known, changes):
    known(more=5.0)
    run = simulated(tmp_path / "run", **{"data": WHOLE, "suite": SUITE, **changes})
    assert {verdict for verdict, _ in verdicts(run).values()} == {"conclusive"}
    assert new_best_known(run) == []


def test_names_seeds_attacks_and_the_search_split_do_not_matter(run, tmp_path, known):
    known(more=5.0)
    points = [{"name": "open"}, {"name": "closed", "reduction": "tome"}]
    suite = suite_of(
        operating_points=points,
        attacks=["flat", "renamed"],
        threat_models=[{"name": "cloud"}],
        channels=[{"label": "wire", "name": "ideal"}],
        defense=PLACES["defense"],
        seeds=[4],
    )
    other = simulated(tmp_path / "run", data={**WHOLE, "split_search": "s2"}, suite=suite)
    ours, theirs = exposures_of(suite, other.manifest["data"]), exposures_of(run.suite, WHOLE)
    assert ours["open", "wire", "cloud"].key == theirs["plain", "ideal", "server"].key
    assert verdicts(other)["open"][0] == "inconclusive"


def test_whoever_beats_it_is_asked_to_write_it_down(run, known):
    known(more=-0.2)
    assert new_best_known(run) == [], "not by more than the interval over images"
    known(more=-3.0)
    (line,) = new_best_known(run)
    assert line.startswith("new best known, please update: sharp on plain (ideal, server) reaches ")
    assert "3.0 dB more than cascade, 500 steps" in line
    assert line.endswith("python -m leakgauge.benchmarks.best_known RUN")
    told = [text for text in summarise(run, point_rows(run)).cautions if "best known" in text]
    assert told == [f"N{line[1:]}."]


def test_pages_gates_and_comparisons_follow(run, known):
    base = baseline_of(run)
    assert judge(replace(run), base, Limits()).outcome == "pass"
    rising = with_verdict(run, "inconclusive")
    known(more=0.2)
    lines = [line for part in first_screen(rising, point_rows(rising), "r").parts for line in part.lines]
    assert {(line.verdict, line.reason.partition(":")[0]) for line in lines} == {("conclusive", "by reference")}
    assert judge(replace(rising), base, Limits()).outcome == "pass"
    known(more=4.0)
    gate = judge(replace(run), base, Limits())
    assert gate.outcome == "cannot tell"
    assert any("best known reaches" in check.why for check in gate.checks)
    assert not any(point.conclusive for point in measured(replace(run)))
    assert compare(replace(run), replace(run)).of("identical")
