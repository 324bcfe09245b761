"""A third party's metric goes all the way: columns, table, reports, gate and comparison, by its direction."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toy_task import EACH, register

from leakgauge.harness.contracts.metric import Metric
from leakgauge.harness.errors import ConfigError, PluginError, StoreError
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.rescoring import rescore
from leakgauge.harness.run.run_summary import show
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.scoring.measures import BUILT_IN, own_scores
from leakgauge.harness.scoring.metrics import guarded_score, metrics_of, score_images
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite import registry
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.values.columns import SCORES
from leakgauge.reports.analysis.measures import measured
from leakgauge.reports.analysis.operating_points import operating_points
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.comparison.compare import compare
from leakgauge.reports.gate.baseline import baseline_of, read_baseline, write_baseline
from leakgauge.reports.gate.gate import judge
from leakgauge.reports.gate.limits import parse_limits
from leakgauge.reports.writers.html import write_html
from leakgauge.reports.writers.latex import write_latex
from leakgauge.reports.writers.markdown import write_markdown
from leakgauge.reports.writers.tabular import write_csv, write_parquet
from tests.harness.made_records import record

CPU = torch.device("cpu")
PACKAGE = Path(__file__).parents[2] / "examples" / "plugins" / "metric"


class Brightness(Metric):
    """Difference of mean brightness, in grey levels; the first image is never scored."""

    name, unit, leaks_when, heading, digits = "brightness_gap", "levels", "lower", "Brightness gap", 1

    def score(self, originals: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        gaps = (originals - reconstructions).mean(dim=(1, 2, 3)).abs() * 255
        gaps[0] = math.nan
        return gaps


class Taken(Brightness):
    name = "quality"


class Spoiler(Brightness):
    """Spoils what it is handed, and has a column of its own all the same."""

    name = "spoiler"

    def score(self, originals: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
        originals.zero_()
        reconstructions.fill_(1)
        return torch.full((len(originals),), math.inf)


SUITE: dict[str, Any] = {
    "name": "own",
    "task": "toy",
    "defense": {"name": "split_pipeline", "cut": 1},
    "operating_points": [{"name": "plain"}, {"name": "merged", "reduction": {"name": "threshold", "thresholds": 0.0}}],
    "attacks": ["floor_mean", "ridge"],
    "metrics": ["spoiler", "psnr_db", "brightness_gap"],
    "threat_models": [{"name": "server", "knows": {"merge_map": True}}],
}
PLUGINS = {"tasks_toy": "toy_task:Toy"} | {
    f"metrics_{name}": f"test_own_metrics:{kind}"
    for name, kind in {"spoiler": "Spoiler", "brightness_gap": "Brightness", "taken": "Taken"}.items()
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run; whoever reads it below does so without the plug-in."""
    path = tmp_path_factory.mktemp("own") / "run"
    with pytest.MonkeyPatch.context() as patch:
        register(patch, **PLUGINS)
        run_suite(prepare(parse_suite(SUITE), CPU), path, CPU, 1, lambda done, total: None)
    assert "brightness_gap" not in registry.plugins("metrics")
    return path


@pytest.fixture
def store(finished: Path) -> RunFolder:
    return RunFolder.open(finished)


def changed(finished: Path, to: Path, by: float) -> RunFolder:
    """The same run with other values of the metric on every image of the merged payload."""
    shutil.copytree(finished, to)
    images = pd.read_parquet(to / "images.parquet")
    merged = images["operating_point"] == "merged"
    images.loc[merged, "brightness_gap"] += by
    images.to_parquet(to / "images.parquet", index=False)
    return RunFolder.open(to)


def test_every_image_and_cell_has_the_score_with_its_interval(store: RunFolder) -> None:
    images, cells = store.images(), store.cells()
    own = images[(images["attack"] == "ridge") & (images["operating_point"] == "plain")]
    cell = cells[(cells["attack"] == "ridge") & (cells["operating_point"] == "plain")].iloc[0]
    assert own["brightness_gap"].isna().sum() == 1
    assert cell["brightness_gap"] == pytest.approx(own["brightness_gap"].mean())
    assert cell["brightness_gap_lo"] <= cell["brightness_gap"] <= cell["brightness_gap_hi"]
    assert cell["brightness_gap_lo"] < cell["brightness_gap_hi"]
    assert f"brightness_gap unscored: 1 of {EACH} images could not be scored" in cell["reason"]
    assert images["spoiler"].isna().all(), "what is not finite is unscored"
    assert f"spoiler unscored: {EACH} of {EACH}" in cell["reason"]
    assert 5 < cell["psnr_db"] < 60, "a metric that spoils its images spoils its own alone"
    count, shape = EACH, store.manifest()["task"]["image_shape"][1:]
    originals, rebuilt = (store.read_images(key, count, *shape) / 255.0 for key in ("originals", cell["cell"]))
    by_hand = np.abs(originals.mean(axis=(1, 2, 3)) - rebuilt.mean(axis=(1, 2, 3))) * 255
    assert own["brightness_gap"].to_numpy()[1:] == pytest.approx(by_hand[1:], abs=1e-2)


def test_a_reason_is_said_once_for_all_that_it_holds_for() -> None:
    part = record({"unscored": {"lpips": "no weights", "psnr_db": "too small", "judge_reid_top1": "no weights"}})
    assert part.unscored_text() == "lpips, judge_reid_top1 unscored: no weights; psnr_db unscored: too small"
    assert record({}).unscored_text() == ""


def test_the_strongest_attack_is_chosen_by_its_direction(store: RunFolder) -> None:
    images = store.images()
    merged = images[images["operating_point"] == "merged"]
    run = load_runs([store])[0]
    one = next(m for m in measured(run) if m.point == "merged")
    ridge = merged[merged["attack"] == "ridge"].set_index("image")["brightness_gap"]
    assert one.images["brightness_gap"].dropna().to_dict() == pytest.approx(ridge.dropna().to_dict())
    table = operating_points(store).set_index("operating_point")
    assert table.loc["merged", "strongest_brightness_gap"] == pytest.approx(ridge.mean())
    assert table.loc["merged", "strongest_brightness_gap_lo"] < table.loc["merged", "strongest_brightness_gap_hi"]


def test_the_console_and_every_report_show_it(store: RunFolder, tmp_path: Path, capsys: Any) -> None:
    show(store)
    said = capsys.readouterr().out
    assert "Brightness gap" in said
    assert said.count("spoiler unscored") == 1, "what most cells lack is said once"
    for write in (write_html, write_markdown, write_csv, write_parquet, write_latex):
        write([store], tmp_path)
    for name in ("index.html", "tables.tex"):
        assert "Brightness gap" in (tmp_path / name).read_text()
    assert any("Brightness gap" in path.read_text() for path in tmp_path.glob("*.md"))
    for name in ("cells", "operating_points"):
        head = (tmp_path / f"{name}.csv").read_text().partition("\n")[0].split(",")
        assert {"cells": "brightness_gap_lo", "operating_points": "strongest_brightness_gap_hi"}[name] in head
    columns = pd.read_csv(tmp_path / "columns.csv").set_index(["table", "name"])
    assert columns.loc[("images", "brightness_gap"), "unit"] == "levels"
    assert columns.loc[("cells", "brightness_gap"), "meaning"].startswith("Difference of mean brightness")
    assert "brightness_gap" in pd.read_parquet(tmp_path / "images.parquet")


def outcome(base: RunFolder, new: RunFolder, tmp_path: Path, **limits: Any) -> Any:
    path = tmp_path / "baseline.json"
    write_baseline(baseline_of(load_runs([base])[0]), path)
    stated = {"minimum_images": 10, "inconclusive": "judge", "worse_by": {"brightness_gap": 1}, **limits}
    gate = judge(load_runs([new])[0], read_baseline(path), parse_limits(stated))
    return {c.place.split(",")[0]: c for c in gate.checks if c.measure and c.measure.name == "brightness_gap"}, gate


@pytest.mark.parametrize(("by", "said"), [(-5.0, "leaks more"), (0.0, "pass")])
def test_the_gate_knows_which_way_it_leaks(
    finished: Path, store: RunFolder, tmp_path: Path, by: float, said: str
) -> None:
    found, _ = outcome(store, changed(finished, tmp_path / "new", by), tmp_path)
    assert found["merged"].said.startswith(said)
    assert found["plain"].outcome == "pass"
    assert found["merged"].measure.worse == "lower"


def test_less_leakage_by_an_inconclusive_attack_is_not_believed(
    finished: Path, store: RunFolder, tmp_path: Path
) -> None:
    found, _ = outcome(store, changed(finished, tmp_path / "new", 5.0), tmp_path)
    assert found["merged"].outcome in ("pass", "cannot tell")


def test_the_gate_names_what_it_does_not_check(store: RunFolder, tmp_path: Path) -> None:
    _, gate = outcome(store, store, tmp_path, worse_by={})
    assert any("metric brightness_gap is not checked" in note for note in gate.notes)
    with pytest.raises(ConfigError, match="unknown measure 'brightnes_gap' -- did you mean 'brightness_gap'"):
        outcome(store, store, tmp_path, worse_by={"brightnes_gap": 1})
    absolute = [{"measure": "brightness_gap", "at_least": 1000}]
    found, _ = outcome(store, store, tmp_path, worse_by={}, absolute=absolute)
    assert {check.outcome for check in found.values()} == {"exceeds"}


def test_a_metric_turned_round_is_another_metric(finished: Path, store: RunFolder, tmp_path: Path) -> None:
    other = changed(finished, tmp_path / "new", -5.0)
    manifest = other.manifest()
    next(entry for entry in manifest["metrics"] if entry["name"] == "brightness_gap")["leaks_when"] = "higher"
    other.write_manifest(manifest)
    found, _ = outcome(store, other, tmp_path)
    assert {check.outcome for check in found.values()} == {"cannot tell"}
    rows = compare(load_runs([store])[0], load_runs([other])[0]).rows
    assert {row.outcome for row in rows if row.measure.name == "brightness_gap"} == {"not comparable"}


def test_compare_knows_which_way_it_leaks(finished: Path, store: RunFolder, tmp_path: Path) -> None:
    rows = compare(load_runs([changed(finished, tmp_path / "new", 5.0)])[0], load_runs([store])[0]).rows
    merged = next(row for row in rows if row.measure.name == "brightness_gap" and row.place.startswith("merged"))
    assert merged.outcome in ("worse", "not comparable"), "from a larger gap to a smaller one more leaks"
    back = compare(load_runs([store])[0], load_runs([changed(finished, tmp_path / "other", 5.0)])[0]).rows
    assert next(
        row for row in back if row.measure.name == "brightness_gap" and row.place.startswith("merged")
    ).outcome in ("better", "not comparable")


def test_a_run_is_scored_again_with_it(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, **PLUGINS)
    shutil.copytree(finished, tmp_path / "again")
    again = RunFolder.open(tmp_path / "again")
    before = again.cells()
    rescore(again, CPU)
    pd.testing.assert_frame_equal(again.cells(), before)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (torch.zeros(3), "scores are"),
        (torch.zeros(4, 1), "scores are"),
        (0.5, "scores are float"),
        (ValueError("no"), "score failed: ValueError: no"),
    ],
)
def test_what_a_metric_returns_is_checked(monkeypatch: pytest.MonkeyPatch, found: Any, says: str) -> None:
    def score(self: Any, originals: Any, reconstructions: Any) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(Brightness, "score", score)
    images = torch.zeros(4, 3, 8, 8)
    with pytest.raises(PluginError, match=f"metric 'brightness_gap': {says}"):
        guarded_score(Brightness(), images, images)


def test_names_that_cannot_be_columns_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, **PLUGINS)
    for metrics, says in ((["taken"], "another column"), (["psnr_db", "psnr_db"], "names it twice")):
        with pytest.raises(PluginError, match=says):
            metrics_of(parse_suite({**SUITE, "metrics": metrics}))
    for name in ("brightness_gap_lo", "Bright", "strongest_x", "oracle_leakage", "blind_x", "a,b", "", "x" * 41):
        monkeypatch.setattr(Brightness, "name", name)
        if name != "brightness_gap_lo":
            with pytest.raises(PluginError, match="can be no column"):
                metrics_of(parse_suite({**SUITE, "metrics": ["brightness_gap"]}))


@pytest.mark.parametrize(
    "metrics",
    [
        [{"name": "x"}],
        [{"name": "x", "leaks_when": "sideways"}],
        [{"name": "quality", "leaks_when": "higher"}],
        [{"name": "a,b", "leaks_when": "higher"}],
        [{"name": "x", "leaks_when": "higher", "digits": 10**6}],
        [{"name": "x", "leaks_when": "higher", "unit": 3}],
        [{"name": "x", "leaks_when": "higher"}] * 2,
        ["x"],
        {"x": "y"},
        "x",
    ],
)
def test_a_damaged_description_is_one_line(metrics: Any) -> None:
    with pytest.raises(StoreError, match="describes no metrics"):
        own_scores(json.loads(json.dumps({"metrics": metrics})))


def test_the_table_of_built_in_scores_is_the_columns() -> None:
    assert [score.name for score in BUILT_IN] == [column.name for column in SCORES]
    for name in ("psnr_db", "ssim", "lpips"):
        metric = registry.create("metrics", name, {})
        score = next(score for score in BUILT_IN if score.name == name)
        assert score.leaks_when == metric.leaks_when
        assert score.unit == metric.unit or name == "ssim"


def test_the_example_package_holds_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGE))
    register(monkeypatch, metrics_edge_error="edge_metric:EdgeError")
    suite = parse_suite({**SUITE, "task": "photos", "metrics": [{"name": "edge_error", "scale": 1.0}]})
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    assert score_images(suite, images, images, CPU).values["edge_error"].tolist() == [0.0, 0.0]
    assert len((PACKAGE / "edge_metric.py").read_text().splitlines()) <= 22
    with pytest.raises(ConfigError, match="scale = 0 is not a number above 0"):
        metrics_of(parse_suite({**SUITE, "metrics": [{"name": "edge_error", "scale": 0}]}))
