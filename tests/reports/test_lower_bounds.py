"""A lower bound is called one everywhere, and nothing is proven by it."""

from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from simulated_runs import Simulation, suite_of

from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.analysis.run_list import runs_grid
from leakgauge.reports.analysis.summary import summarise
from leakgauge.reports.comparison.compare import compare
from leakgauge.reports.figures.frontier import Label, _label
from leakgauge.reports.gate.baseline import baseline_of
from leakgauge.reports.tables.matrix import achievement_matrix
from leakgauge.reports.tables.tables import cells_grid, points_grid
from leakgauge.reports.writers.html import write_html
from leakgauge.reports.writers.latex import attacks_table, points_table
from leakgauge.reports.writers.markdown import write_markdown


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> RunFolder:
    return Simulation(verdict="lower bound").write(tmp_path_factory.mktemp("bounds") / "run")


@pytest.fixture(scope="module")
def run(folder):
    return load_runs([folder])[0]


def texts(grid):
    return " ".join(f"{value.text} {value.detail}" for row in grid.rows for value in row)


def test_tables_and_pages_say_it(run, folder, tmp_path):
    rows = point_rows(run)
    assert {row["verdict"] for row in rows} == {"lower bound"}
    assert all("sharp, the strongest here: tokens were merged" in row["reason"] for row in rows)
    for grid in (points_grid(run, rows), cells_grid(run), achievement_matrix(run)):
        assert "lower bound" in texts(grid)
        assert "inconclusive" not in texts(grid)
    for path in (write_html([folder], tmp_path)[0], write_markdown([folder], tmp_path)[0]):
        text = path.read_text(encoding="utf-8")
        assert "cannot find positions" in text
        assert "(conclusive)" not in text
    setting = run.settings[0]
    assert r"\textsuperscript{\dag}" in points_table(run, setting, rows)
    assert r"\textsuperscript{\dag}" in attacks_table(run, setting)
    columns = [heading.text for heading in runs_grid(folder.path.parent).headings]
    entries = dict(zip(columns, runs_grid(folder.path.parent).rows[0], strict=True))
    assert entries["Lower bounds"].text == "2"
    assert entries["Inconclusive"].text == "0"
    assert {point.verdict for point in baseline_of(run).points} == {"lower bound"}


def test_the_summary_does_not_say_that_less_leaks(tmp_path):
    run = load_runs([Simulation(shift=-3.0, verdict="lower bound").write(tmp_path / "run")])[0]
    summary = summarise(run, point_rows(run))
    (finding,) = summary.findings
    assert finding.verdict == "lower bound"
    assert "less is not shown, as this point is a lower bound" in finding.text
    assert "at least" in finding.text
    assert any("2 of 4 cells are lower bounds" in text for text in summary.cautions)
    assert "a lower bound" in summary.baselines[0]


def test_a_comparison_names_the_verdict(tmp_path, run):
    less = load_runs([Simulation(shift=-2.0, verdict="lower bound").write(tmp_path / "less")])[0]
    found = {(row.place.split(",")[0], row.measure.name): row for row in compare(run, less).rows}
    assert found["merged", "leakage"].outcome == "not comparable"
    assert "(lower bound)" in found["merged", "leakage"].why


def test_the_strongest_decides(tmp_path):
    run = load_runs([Simulation(suite=suite_of(attacks=["flat", "sharp", "asked"])).write(tmp_path / "run")])[0]
    assert {row["verdict"] for row in point_rows(run)} == {"conclusive"}
    cells = run.cells.copy()
    cells.loc[cells["attack"] == "sharp", "verdict"] = "lower bound"
    assert {row["verdict"] for row in point_rows(replace(run, cells=cells.copy()))} == {"lower bound"}
    cells.loc[cells["attack"] == "sharp", "psnr_db"] = float("nan")
    # Nothing but a floor is scored now: nothing is known of what leaks.
    assert {row["verdict"] for row in point_rows(replace(run, cells=cells))} == {"inconclusive"}


def test_a_warning_stands_beside_the_verdict(run):
    cells = run.cells.copy()
    cells["warning"] = ""
    cells.loc[cells["attack"] == "sharp", "warning"] = "more, with other settings, rebuilds +1.00 dB better here"
    warned = type(run)(run.folder, run.label, run.manifest, run.suite, cells, run.images)
    assert "warning: more, with other settings" in texts(cells_grid(warned))
    assert any(text.startswith("Warning: sharp on plain") for text in summarise(warned, point_rows(warned)).cautions)


def test_the_frontier_labels_it(run):

    figure = Figure()
    axes = figure.subplots()
    _label(figure, axes, [Label("merged", 0.5, 1.0, 0.9, 1.1, "lower bound"), Label("plain", 0.1, 2.0, 2.0, 2.0)])
    assert {text.get_text() for text in axes.texts} == {"merged (lower bound)", "plain"}
