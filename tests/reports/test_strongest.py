"""The headline: the one attack that is best on average by a score, in its own direction; no floors and no probes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
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
    attacks = by_attack(run, "leakage")[["sharp", "other"]]
    (attack,) = set(best["attack"])
    assert attack == attacks.mean().idxmax()
    attacks = attacks[attack]
    assert best["leakage"].tolist() == pytest.approx(attacks[best.index].tolist())
    assert (best["leakage"] < 0).sum() > 10
    headline = next(one for one in measured(run) if one.point == "merged").images["leakage"]
    assert headline.tolist() == pytest.approx(attacks[headline.index].tolist())


def test_each_score_is_of_the_attack_that_is_best_at_it_in_its_own_direction(run):
    images = run.images.copy()
    behind = images["attack"] == by_attack(run, "psnr_db")[["sharp", "other"]].mean().idxmin()
    # Behind in PSNR, ahead in SSIM, and still behind in LPIPS.
    images.loc[behind, ["ssim", "lpips"]] += 0.2
    run = replace(run, images=images)
    best = strongest_rows(run, *PLACE).set_index("image")
    for name, most in (("psnr_db", "idxmax"), ("ssim", "idxmax"), ("lpips", "idxmin")):
        attacks = by_attack(run, name)[["sharp", "other"]]
        expected = attacks[getattr(attacks.mean(), most)()]
        assert best[name].tolist() == pytest.approx(expected[best.index].tolist()), name
    assert (best["attack"] == best["attack"].iloc[0]).all()


def test_the_best_on_each_image_stands_beside_and_is_more(run):
    best = strongest_rows(run, *PLACE).set_index("image")
    expected = by_attack(run, "leakage")[["sharp", "other"]].max(axis=1)
    assert best["oracle_leakage"].tolist() == pytest.approx(expected[best.index].tolist())
    row = next(row for row in point_rows(run) if row["operating_point"] == PLACE[0])
    assert row["oracle_leakage"] == pytest.approx(expected.mean())
    assert row["oracle_leakage"] > row["strongest_leakage"] + 0.1


def test_guesses_are_the_best_of_what_the_same_attacks_rebuilt_of_others(run):
    images, rng = run.images.copy(), np.random.default_rng(3)
    images["permuted_psnr_db"] = rng.normal(10.0, 1.0, len(images))
    known = replace(run, images=images)
    best = strongest_rows(known, *PLACE).set_index("image")
    # The floor of these runs has 12 dB on every image.
    expected = by_attack(known, "permuted_psnr_db")[["sharp", "other"]].max(axis=1) - 12
    assert best["blind_leakage"].tolist() == pytest.approx(expected[best.index].tolist())
    assert math.isnan(point_rows(run)[1]["blind_leakage"]), "a run of before knows of no guesses"


def test_an_attack_that_lacks_images_is_compared_on_those_that_all_have(run):
    images = run.images.copy()
    sharp = by_attack(run, "psnr_db")["sharp"]
    hard = sharp[sharp < sharp.quantile(0.7)].index
    lost = (images["attack"] == "other") & images["image"].isin(hard)
    images.loc[images["attack"] == "sharp", ["psnr_db", "leakage"]] += 1.0
    images.loc[lost, ["psnr_db", "leakage"]] = math.nan
    fewer = replace(run, images=images)
    table = by_attack(fewer, "psnr_db")
    assert table["other"].mean() > table["sharp"].mean(), "by their own means the other would be"
    assert set(strongest_rows(fewer, *PLACE)["attack"]) == {"sharp"}


@pytest.mark.parametrize("labels", [["flat"], ["flat", "asked"]])
def test_where_nothing_else_rebuilds_nothing_is_scored(run, labels):
    alone = replace(run, cells=run.cells[run.cells["attack"].isin(labels)])
    assert strongest_rows(alone, *PLACE).empty
    row = next(row for row in point_rows(alone) if row["operating_point"] == PLACE[0])
    assert row["n"] == 0
    for name in ("psnr_db", "ssim", "lpips", "leakage"):
        assert math.isnan(row[f"strongest_{name}"]), name
    assert math.isnan(row["oracle_leakage"])
    assert math.isnan(row["blind_leakage"])
