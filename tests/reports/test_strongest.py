"""The headline: the strongest attack on each image, by each score in its own direction, floors and probes left out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from simulated_runs import simulated, suite_of

from leakgauge.reports.analysis.measures import measured
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import Setting
from leakgauge.reports.analysis.strongest import strongest_rows

PLACE = "merged", Setting("ideal", "server")
ATTACKS = suite_of(attacks=["flat", "sharp", "other", "asked"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    # So little is rebuilt that the floor is the best on many images.
    return simulated(tmp_path_factory.mktemp("runs") / "run", suite=ATTACKS, shift=-8.0, noise=1.0, probe=0.9)


def by_attack(run, name):
    rows = run.images[run.images["operating_point"] == "merged"]
    return rows.pivot_table(index="image", columns="attack", values=name)


def test_floors_and_probes_do_not_compete(run):
    best = strongest_rows(run, *PLACE).set_index("image")
    assert set(best["attack"]) == {"sharp", "other"}
    attacks = by_attack(run, "leakage")[["sharp", "other"]].max(axis=1)
    assert best["leakage"].tolist() == pytest.approx(attacks[best.index].tolist())
    assert (best["leakage"] < 0).sum() > 10
    headline = next(one for one in measured(run) if one.point == "merged").images["leakage"]
    assert headline.tolist() == pytest.approx(attacks[headline.index].tolist())


def test_each_score_is_the_strongest_in_its_own_direction(run):
    best = strongest_rows(run, *PLACE).set_index("image")
    for name, most in (("psnr_db", "max"), ("ssim", "max"), ("lpips", "min")):
        expected = getattr(by_attack(run, name)[["sharp", "other"]], most)(axis=1)
        assert best[name].tolist() == pytest.approx(expected[best.index].tolist()), name
    winner = by_attack(run, "psnr_db")[["sharp", "other"]].idxmax(axis=1)
    assert best["attack"].tolist() == winner[best.index].tolist()


@pytest.mark.parametrize("labels", [["flat"], ["flat", "asked"]])
def test_where_nothing_else_rebuilds_nothing_is_scored(run, labels):
    alone = replace(run, cells=run.cells[run.cells["attack"].isin(labels)])
    assert strongest_rows(alone, *PLACE).empty
    row = next(row for row in point_rows(alone) if row["operating_point"] == PLACE[0])
    assert row["n"] == 0
    for name in ("psnr_db", "ssim", "lpips", "leakage"):
        assert math.isnan(row[f"strongest_{name}"]), name
