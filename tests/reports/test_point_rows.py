"""The table of operating points: shares and changes from the baseline, and which attack and verdict stand for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated_runs import simulated, suite_of

from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import Setting
from leakgauge.reports.analysis.verdicts.point_verdict import verdict_of

HERE = Setting("ideal", "server")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    suite = suite_of(attacks=["flat", "sharp", "other"])
    found = simulated(tmp_path_factory.mktemp("rows") / "run", suite=suite, shift=-2.0)
    images, cells = found.images.copy(), found.cells.copy()
    merged = images["operating_point"] == "merged"
    images.loc[merged, "quality"] = 0.25
    images.loc[merged & (images["attack"] == "other"), "reid_top1"] = 0.9
    point = cells["operating_point"] == "merged"
    cells.loc[point, "payload_bytes"] = 100.0
    cells.loc[point & (cells["attack"] == "other"), "reid_top1"] = 0.9
    cells.loc[point & (cells["attack"] == "flat"), "reid_top1"] = 1.0
    return replace(found, images=images, cells=cells)


def test_changes_are_the_point_s_minus_the_baseline_s(run):
    plain, merged = point_rows(run)
    assert (plain["baseline"], merged["baseline"]) == ("yes", "no")
    assert merged["payload_share"] == pytest.approx(100 / 400)
    assert plain["payload_share"] == 1.0
    rows = run.images[run.images["attack"] != "flat"]
    by_attack = rows.pivot_table(index="image", columns=["operating_point", "attack"], values="leakage")
    best = {point: by_attack[point][by_attack[point].mean().idxmax()] for point in ("plain", "merged")}
    assert merged["leakage_change"] == pytest.approx((best["merged"] - best["plain"]).mean())
    assert merged["leakage_change"] < -1
    quality = run.images[run.images["operating_point"] == "plain"]["quality"].mean()
    assert merged["quality_change"] == pytest.approx(0.25 - quality)


def test_reidentification_is_of_the_one_attack_that_is_best_at_it(run):
    merged = point_rows(run)[1]
    assert (merged["reid_attack"], merged["reid_top1"]) == ("other", 0.9)


def test_the_attack_that_is_strongest_on_average_is_named(run):
    for row in point_rows(run):
        rows = run.images[run.images["operating_point"] == row["operating_point"]]
        psnr = rows[rows["attack"] != "flat"].pivot_table(index="image", columns="attack", values="psnr_db")
        assert row["strongest_attack"] == psnr.mean().idxmax()
        share = (psnr.idxmax(axis=1) == row["strongest_attack"]).mean()
        assert row["strongest_share"] == pytest.approx(share)
        assert row["strongest_psnr_db"] == pytest.approx(psnr.mean().max())


def cell(attack, psnr_db, verdict="conclusive", status="done"):
    return {"attack": attack, "psnr_db": psnr_db, "verdict": verdict, "status": status, "reason": "because"}


def test_the_strongest_attack_s_verdict_stands_for_the_point(run):
    bound, sure = cell("sharp", 20.0, "lower bound"), cell("other", 18.0)
    assert verdict_of(run, [bound, sure])[0] == "lower bound"
    assert verdict_of(run, [bound, {**sure, "psnr_db": 22.0}])[0] == "conclusive"
    assert verdict_of(run, [bound, cell("flat", 30.0)])[0] == "lower bound"
    assert verdict_of(run, [sure, cell("sharp", 3.0, "inconclusive")])[0] == "conclusive", "it is 15 dB behind"
    assert verdict_of(run, [sure, cell("sharp", 19.0, "inconclusive")])[0] == "inconclusive"
    assert verdict_of(run, [sure, cell("sharp", np.nan, "inconclusive", "failed")])[0] == "inconclusive"
