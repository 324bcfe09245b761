"""Probes in a report: their answers are shown, and nothing that concerns pictures asks them for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.planning import content_hash
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import Setting, load_runs
from leakgauge.reports.analysis.strongest import candidates
from leakgauge.reports.figures.curves import curves_at
from leakgauge.reports.tables.matrix import achievement_matrix, grants
from leakgauge.reports.tables.tables import cells_grid
from leakgauge.reports.writers.gallery import gallery
from leakgauge.reports.writers.html import write_html
from leakgauge.reports.writers.markdown import write_markdown
from leakgauge.reports.writers.tabular import write_csv

MakeRun = Callable[..., RunFolder]
SETTING = Setting("ideal", "server")
PICTURES = ["psnr_db", "ssim", "lpips", "label_agreement", "leakage", "attribute_accuracy", "attribute_auc"]
PROBES = {"guess": "attribute", "seek": "identity"}


def key_of(attack: str, point: str) -> str:
    return content_hash([attack, point])


def as_probe(rows: pd.DataFrame, attack: str, **answers: Any) -> pd.DataFrame:
    """Turns the rows of an attack into those of a probe."""
    found = rows[rows["attack"] == "sharp"].copy()
    found["attack"], found["cell"] = attack, [key_of(attack, point) for point in found["operating_point"]]
    for name in (c for c in found.columns if c.removesuffix("_lo").removesuffix("_hi") in {*PICTURES, "reid_top1"}):
        found[name] = np.nan
    return found.assign(**answers)


@pytest.fixture(scope="module")
def plain(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("runs") / "plain")


@pytest.fixture(scope="module")
def run(plain: RunFolder, make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    entries = {label: {"plugin": label, "kind": kind, "floor": False} for label, kind in PROBES.items()}
    stated = {**plain.manifest()["attacks"], **entries}
    run = make_run(tmp_path_factory.mktemp("runs") / "plain", attacks=stated)
    cells, images = run.cells(), run.images()
    accuracy = {"attribute": "mood", "attribute_accuracy": 0.75, "attribute_chance": 0.5, "attribute_auc": 0.875}
    ends = {
        "attribute_accuracy_lo": 0.7,
        "attribute_accuracy_hi": 0.8,
        "attribute_auc_lo": 0.8,
        "attribute_auc_hi": 0.9,
    }
    more = [as_probe(cells, "guess", **accuracy, **ends)]
    more.append(as_probe(cells, "seek", reid_top1=0.99, reid_top1_lo=0.98, reid_top1_hi=1.0))
    rows = [as_probe(images, "guess", attribute_correct=1.0), as_probe(images, "seek", reid_top1=1.0)]
    run.write_tables(pd.concat([cells, *more]).to_dict("records"), pd.concat([images, *rows]).to_dict("records"))
    curve = LearningCurve(10)
    curve.add(10, 1.0, 12.0)
    run.write_curve(key_of("guess", "plain"), curve)
    return run


def test_nothing_about_pictures_changes(run: RunFolder, plain: RunFolder) -> None:
    with_probes, without = load_runs([run])[0], load_runs([plain])[0]
    assert with_probes.is_probe("guess")
    assert not with_probes.is_probe("sharp")
    assert gallery(with_probes) == gallery(without)
    assert curves_at(with_probes, SETTING).keys() == curves_at(without, SETTING).keys()
    painted = [row for row in achievement_matrix(with_probes).rows if not with_probes.is_probe(row[0].text)]
    assert painted == achievement_matrix(without).rows
    for one, other in zip(point_rows(with_probes), point_rows(without), strict=True):
        assert one.pop("reid_attack") == "seek"
        assert other.pop("reid_attack") != "seek"
        names = [name for name in one if not name.startswith(("reid", "reason"))]
        pd.testing.assert_series_equal(pd.Series(one)[names], pd.Series(other)[names])


def test_an_identity_probe_may_be_the_best_at_re_identification(run: RunFolder) -> None:
    row = point_rows(load_runs([run])[0])[0]
    assert (row["reid_top1"], row["reid_top1_lo"], row["reid_top1_hi"]) == pytest.approx((0.99, 0.98, 1.0))


def test_the_matrix_tells_grants_and_scores_of_probes(run: RunFolder) -> None:
    loaded = load_runs([run])[0]
    grid = achievement_matrix(loaded)
    assert [heading.text for heading in grid.headings] == ["Attack", "plain", "merged"]
    by_attack = {row[0].text: row for row in grid.rows}
    said = "queries to the victim, order, sizes, channel state; not merge map"
    assert grants(loaded) == (f"Granted by threat model server: {said}.",)
    assert by_attack["guess"][1].text == "0.875"
    assert "AUC of mood" in by_attack["guess"][1].detail
    assert by_attack["seek"][1].text == "99.0"
    assert by_attack["slow"][2].detail.endswith("inconclusive")
    assert by_attack["odd"][2].text == "failed"


def test_what_is_granted_is_written_once_in_every_report(run: RunFolder, tmp_path: Path) -> None:
    (said,) = grants(load_runs([run])[0])
    page = write_html([run], tmp_path)[0].read_text(encoding="utf-8")
    assert page.count(said) == 1
    assert (write_markdown([run], tmp_path)[0].read_text(encoding="utf-8")).count(said) == 1


def test_answers_are_in_the_table_of_cells_where_there_are_any(run: RunFolder, plain: RunFolder) -> None:
    grid = cells_grid(load_runs([run])[0])
    headings = [heading.text for heading in grid.headings]
    place = headings.index("Attribute")
    assert headings[place : place + 4] == ["Attribute", "Named", "By chance", "AUC"]
    assert all(len(row) == len(headings) for row in grid.rows)
    row = next(row for row in grid.rows if row[1].text == "guess")
    assert [value.text for value in row[place : place + 4]] == ["mood", "75.0", "50.0", "0.875"]
    assert row[place + 1].detail == "[70.0, 80.0]"
    assert "Attribute" not in [heading.text for heading in cells_grid(load_runs([plain])[0]).headings]


@pytest.mark.slow
def test_every_writer_copes(run: RunFolder, tmp_path: Path) -> None:
    page = write_html([run], tmp_path)[0].read_text(encoding="utf-8")
    text = write_markdown([run], tmp_path)[0].read_text(encoding="utf-8")
    for report in (page, text):
        assert "attribute probe" in report
        assert "identity probe" in report
        assert "no picture stored" not in report.split("</style>")[-1]
    frame = pd.read_csv(write_csv([run], tmp_path)[1], keep_default_na=False)
    assert set(frame["attribute"]) == {"", "mood"}


def test_an_operating_point_with_nothing_but_probes_is_unscored(run: RunFolder, tmp_path: Path) -> None:
    cells, images = run.cells(), run.images()
    bare = RunFolder(tmp_path / "bare")
    stated = dict(run.manifest())
    stated["suite"] = {**stated["suite"], "attacks": ["guess", "seek"]}
    bare.write_manifest(stated)
    bare.write_tables(
        cells[cells["attack"].isin(PROBES)].to_dict("records"), images[images["attack"].isin(PROBES)].to_dict("records")
    )
    loaded = load_runs([bare])[0]
    assert candidates(loaded, "plain", SETTING) == []
    row = point_rows(loaded)[0]
    assert row["n"] == 0
    assert np.isnan(row["strongest_psnr_db"])
    assert row["reid_attack"] == "seek"
    page = write_html([bare], tmp_path / "out")[0].read_text(encoding="utf-8")
    assert "no attack was scored" in page
    assert [strip.name for strip in gallery(loaded).strips] == ["Original"]
    write_markdown([bare], tmp_path / "out")
