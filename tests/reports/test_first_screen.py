"""The first screen: shares of the baseline, bars on one scale, words that claim no more than the verdicts carry."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated_runs import simulated, suite_of

from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.verdicts.point_verdict import NOT_ATTACKED
from leakgauge.reports.writers.first_screen import PICTURES, first_screen


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return simulated(tmp_path_factory.mktemp("runs") / "run", suite=suite_of(attacks=["flat", "sharp", "other"]))


@pytest.fixture(scope="module")
def rows(run):
    return point_rows(run)


def with_verdicts(rows, *verdicts):
    return [dict(row, verdict=verdict) for row, verdict in zip(rows, verdicts, strict=True)]


def test_every_operating_point_has_a_line_of_shares_and_leakage(run, rows):
    screen = first_screen(run, rows, "run1")
    lines = [line for part in screen.parts for line in part.lines]
    assert [line.name for line in lines] == [row["operating_point"] for row in rows]
    assert len({line.anchor for line in lines}) == len(lines)
    base = next(row for row in rows if row["baseline"] == "yes")
    for row, line in zip(rows, lines, strict=True):
        assert line.payload_share == f"{100 * row['payload_bytes'] / base['payload_bytes']:.0f} %"
        assert line.flops_share == f"{100 * row['gflops_total'] / base['gflops_total']:.0f} %"
        assert line.leakage.replace("\N{MINUS SIGN}", "-") == f"{row['strongest_leakage']:.1f} dB"
        assert len(line.pictures) in {0, PICTURES}
    assert lines[0].payload_share == "100 %"


def test_bars_share_one_scale_and_stay_on_it(run, rows):
    below = [dict(row) for row in rows]
    below[-1] |= {"strongest_leakage": -3.0, "strongest_leakage_lo": -4.0, "strongest_leakage_hi": -2.0}
    bars = [line.bar for part in first_screen(run, below, "k").parts for line in part.lines]
    assert max(bar.hi for bar in bars) == 100
    assert (bars[-1].end, bars[-1].lo, bars[-1].hi) == (0, 0, 0)
    widest = max(row["strongest_leakage_hi"] for row in below)
    assert bars[0].end == pytest.approx(100 * below[0]["strongest_leakage"] / widest, abs=0.01)


def test_what_is_open_is_said_and_counted(run, rows):
    def said(*verdicts):
        return first_screen(run, with_verdicts(rows, *verdicts), "k").open

    every = len(rows)
    assert said(*["inconclusive"] * every).startswith(f"All {every} figures are inconclusive: ")
    assert said("inconclusive", *["conclusive"] * (every - 1)).startswith(f"1 of {every} figures is inconclusive: ")
    assert "lower bound: " in said("lower bound", *["conclusive"] * (every - 1))
    assert "show no defense to be safe" in said("inconclusive", *["conclusive"] * (every - 1))
    sure = said(*["conclusive"] * every)
    assert "bound" not in sure
    assert "not known" in sure


def test_the_headline_names_the_point_that_leaks_least(run, rows):
    defended = [row for row in rows if row["baseline"] == "no"]
    least = min(defended, key=lambda row: row["strongest_leakage"])
    shown = first_screen(run, rows, "k").shown
    assert f"{least['operating_point']} leaks least" in shown
    assert f"{least['strongest_leakage']:.1f} dB" in shown.replace("\N{MINUS SIGN}", "-")


@pytest.mark.parametrize(("gap", "overlaps"), [(-0.01, True), (0.01, False)])
def test_the_headline_says_among_how_many_points_and_which_may_leak_as_little(run, rows, gap, overlaps):
    [least] = [row for row in rows if row["baseline"] == "no"]
    other = {**least, "operating_point": "other", "strongest_leakage": least["strongest_leakage_hi"] + 1}
    other["strongest_leakage_lo"] = least["strongest_leakage_hi"] + gap
    alone, both = (first_screen(run, given, "k").shown for given in (rows, [*rows, other]))
    assert "defended points" not in alone
    assert f"of 2 defended points that were attacked {least['operating_point']} leaks least" in both
    assert ("(intervals of 1 more overlap with its own)" in both) == overlaps


def test_nothing_scored_is_no_zero(run, rows):
    nan = float("nan")
    gone = [dict.fromkeys(row, nan) | {k: row[k] for k in row if isinstance(row[k], str)} for row in rows]
    screen = first_screen(run, gone, "k")
    assert "no attack was scored" in screen.shown.lower()
    for part in screen.parts:
        for line in part.lines:
            assert (line.leakage, line.bar, line.payload_share) == ("unscored", None, "unscored")
    assert first_screen(run, [], "k").open == "Nothing can be concluded: no cell is done."


def test_points_that_only_floors_met_are_not_called_safe(run):
    alone = replace(run, cells=run.cells[(run.cells["attack"] == "flat") | (run.cells["operating_point"] != "merged")])
    images = alone.images[(alone.images["attack"] == "flat") | (alone.images["operating_point"] != "merged")]
    alone = replace(alone, images=images)
    rows = point_rows(alone)
    merged = next(row for row in rows if row["operating_point"] == "merged")
    assert (merged["verdict"], merged["reason"]) == ("inconclusive", NOT_ATTACKED)
    screen = first_screen(alone, rows, "k")
    line = next(line for part in screen.parts for line in part.lines if line.name == "merged")
    assert (line.verdict, line.leakage, line.bar, line.pictures) == ("not attacked", "unscored", None, ())
    assert "merged leaks least" not in screen.shown
    assert "not attacked: nothing but blind guesses" in screen.open
