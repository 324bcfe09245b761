"""Several runs on one page: what they share in one table, the same images side by side, what changed and why not."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.comparison.compare import compare
from leakgauge.reports.comparison.overlaid_frontier import overlaid_frontier
from leakgauge.reports.comparison.page import lead, unlike
from leakgauge.reports.comparison.side_by_side import side_by_side, worse_images
from leakgauge.reports.writers.html import write_html


@pytest.fixture(scope="module")
def folders(make_run, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return [make_run(place / name) for name in ("one", "two")]


@pytest.fixture(scope="module")
def runs(folders):
    return load_runs(folders)


def raised(run, decibel, point="plain"):
    """Returns a run that leaks so much more at a point, on every image but the first."""
    images = run.images.copy()
    attacked = (images["operating_point"] == point) & ~images["attack"].map(run.is_floor)
    attacked &= images["image"] != images["image"].iloc[0]
    for name in ("leakage", "psnr_db"):
        images.loc[attacked, name] += decibel
    return replace(run, images=images)


def told(first, second):
    found = compare(first, second)
    rows = [point_rows(run) for run in (first, second)]
    return {place.name: place for place in side_by_side([first, second], rows, [None, found])}


def test_every_place_has_every_run_that_measured_it(runs):
    places = told(*runs)
    assert set(places) == {"plain", "merged"}
    for place in places.values():
        assert [entry.run for entry in place.entries] == [run.label for run in runs]
        assert place.entries[0].change is None
        assert all(picture.uri.startswith("data:image/png") for picture in place.originals)
    plain = places["plain"].entries
    assert plain[0].leakage == plain[1].leakage
    assert plain[0].pictures[0].uri == plain[1].pictures[0].uri
    assert plain[1].change.outcome == "identical"


def test_what_leaks_more_is_said_and_shown(runs):
    base, new = runs[0], raised(runs[1], 3.0)
    change = told(base, new)["plain"].entries[1].change
    assert change.difference.startswith("+")
    worst = worse_images(base, new)
    assert worst
    assert {one.where for one in worst} == {"plain"}
    assert {one.change for one in worst} == {"+3.0 dB"}
    assert all(one.original.uri and one.before.uri and one.after.uri for one in worst)
    assert worse_images(new, base) == ()


def test_the_lead_counts_what_the_comparison_found(runs):
    said = lead([None, compare(*runs)])
    told = "leaks the same on every image at 2 of 2 operating points that both measured."
    assert said == [f"Against {runs[0].label}, {runs[1].label} {told}"]
    other = replace(runs[1], suite=runs[1].suite, manifest={**runs[1].manifest, "data": {"victim": "another"}})
    (line,) = lead([None, compare(runs[0], other)])
    assert "cannot be compared at 2 of 2" in line


def test_a_run_without_results_has_its_place(make_run, runs, tmp_path):
    empty = make_run(tmp_path / "empty", status="running")
    empty.write_tables([], [])
    loaded = load_runs([runs[0].folder, empty])
    written = write_html([runs[0].folder, empty], tmp_path / "out")
    assert [path.name for path in written] == ["index.html", "run-1.html", "run-2.html"]
    assert overlaid_frontier(loaded[1:], [point_rows(loaded[1])]) is None


def test_the_figure_draws_each_scored_point_of_each_run(runs):
    rows = [point_rows(run) for run in runs]
    plot = overlaid_frontier(runs, rows)
    marked = [line for line in plot.figure.axes[0].lines if line.get_marker() not in {"None", "none", ""}]
    assert len(marked) == 4
    drawn = sorted(float(line.get_ydata()[0]) for line in marked)
    assert drawn == pytest.approx(sorted(row["strongest_leakage"] for own in rows for row in own))
    hollow = [line for line in marked if line.get_markerfacecolor() == "none"]
    assert len(hollow) == sum(row["verdict"] != "conclusive" for own in rows for row in own)


def test_the_page_is_one_with_links_to_each_report(folders, runs, tmp_path):
    out = tmp_path / "report"
    done = CliRunner().invoke(app, ["report", *(str(folder.path) for folder in folders), "--out", str(out)])
    assert done.exit_code == 0, done.output
    page = (out / "index.html").read_text()
    for number, run in enumerate(runs, start=1):
        assert f'<a href="run-{number}.html">Report of {run.label}</a>' in page
        assert "Provenance" in (out / f"run-{number}.html").read_text()
    assert "Provenance" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#|run-\d\.html)', page)


def test_names_from_outside_are_escaped(make_run, runs, tmp_path):
    path = tmp_path / "<script>alert(1)</script>"
    shutil.copytree(runs[0].folder.path, path)
    page = write_html([runs[0].folder, type(runs[0].folder)(path)], tmp_path / "out")[0].read_text()
    assert "<script>alert" not in page


def test_compare_writes_the_page_too(folders, tmp_path):
    out = tmp_path / "compared"
    done = CliRunner().invoke(app, ["compare", *(str(folder.path) for folder in folders), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert {path.name for path in out.iterdir()} >= {"index.html", "comparison.md", "comparison.csv"}
    assert "Report of" not in (out / "index.html").read_text()


def granted(run, **knows):
    model = run.suite.threat_models[0]
    model = model.model_copy(update={"knows": model.knows.model_copy(update=knows)})
    return replace(run, suite=run.suite.model_copy(update={"threat_models": (model,)}))


def test_the_first_screen_says_what_was_not_alike_and_what_is_not_comparable(runs):
    (line,) = lead([None, compare(runs[0], granted(runs[1], merge_map=True))])
    assert "cannot be compared at 2 of 2" in line
    assert "Not comparable: threat model server grants something else: knows.merge_map false, now true." in line
    assert unlike(compare(*runs)) == ""
    (attack, *others) = runs[1].suite.attacks
    renamed = attack.model_copy(update={"label": "new"})
    other = replace(runs[1], suite=runs[1].suite.model_copy(update={"attacks": (renamed, *others)}))
    assert "only one of them has the attack new" in unlike(compare(runs[0], other))


def test_runs_that_cannot_be_compared_show_no_image_as_worse(folders, runs, tmp_path):
    manifest = {**folders[1].manifest(), "data": {"victim": "another"}}
    shutil.copytree(folders[1].path, tmp_path / "other")
    other = type(folders[1])(tmp_path / "other")
    other.write_manifest(manifest)
    page = write_html([folders[0], other], tmp_path / "out")[0].read_text()
    assert "another victim" in page
    assert "Images that leak more than before" not in page
