"""What the interactive frontier is drawn from: the table's numbers, no markup, no false zero."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import vl_convert

from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.figures.palette import MARKERS
from leakgauge.reports.writers.first_screen import first_screen
from leakgauge.reports.writers.interactive_frontier import SHAPES, SPEC, frontier_data
from leakgauge.reports.writers.page_scripts import page_json, policy, vega_script


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    return load_runs([make_run(tmp_path_factory.mktemp("runs") / "toy")])[0]


def data_of(run):
    rows = point_rows(run)
    return frontier_data(run, rows, first_screen(run, rows, "k")), rows


def test_every_point_has_the_numbers_of_the_table(run):
    data, rows = data_of(run)
    assert [point["name"] for point in data["points"]] == [row["operating_point"] for row in rows]
    for point, row in zip(data["points"], rows, strict=True):
        assert point["leaks"][""]["at"] == [row[f"strongest_leakage{end}"] for end in ("", "_lo", "_hi")]
        assert point["leaks"][""]["verdict"] == row["verdict"]
        assert point["costs"]["payload_bytes"] == [row["payload_bytes"], None, None]
        assert point["costs"]["quality"][0] == pytest.approx(100 * row["quality"])
        assert point["baseline"] == (row["baseline"] == "yes")


def test_an_attack_alone_has_its_own_leakage_and_verdict(run):
    data, _ = data_of(run)
    merged = next(point for point in data["points"] if point["name"] == "merged")
    assert "flat" not in merged["leaks"], "a floor attacks nothing"
    assert "odd" not in merged["leaks"], "a failed cell has no leakage, not even none"
    assert merged["leaks"]["slow"]["verdict"] == "inconclusive"
    assert merged["leaks"]["slow"]["reason"] == "not converged: still gaining"
    cell = next(c for c in run.cells_at(run.settings[0], "merged") if c["attack"] == "sharp")
    assert merged["leaks"]["sharp"]["at"] == pytest.approx([cell[f"leakage{end}"] for end in ("", "_lo", "_hi")])


def test_where_nothing_but_floors_was_run_nothing_is_drawn(run):
    kept = (run.cells["attack"] == "flat") | (run.cells["operating_point"] != "merged")
    images = run.images[(run.images["attack"] == "flat") | (run.images["operating_point"] != "merged")]
    data, _ = data_of(replace(run, cells=run.cells[kept], images=images))
    merged = next(point for point in data["points"] if point["name"] == "merged")
    assert merged["leaks"] == {}


def test_the_drawing_is_vega_lite_and_knows_every_marker():
    assert set(SHAPES) == {"*", *MARKERS}
    compiled = vl_convert.vegalite_to_vega(json.loads(json.dumps(SPEC)))
    names = {mark["name"] for mark in compiled["marks"]}
    assert {"points_marks", "intervals_marks", "hits_marks"} <= names, "the page's script finds its marks by name"


def test_data_in_a_page_cannot_end_its_element_or_hold_what_is_no_number():
    text = page_json({"</script><!--": "<b>&\u2028"})
    assert not re.search("[<>&\u2028]", text)
    assert json.loads(text) == {"</script><!--": "<b>&\u2028"}
    with pytest.raises(ValueError, match="JSON"):
        page_json([float("nan")])


def test_the_policy_allows_named_scripts_and_no_network():
    one, other = policy(["a"]), policy(["b"])
    assert one != other
    for said in (one, other, policy([])):
        assert said.startswith("default-src 'none'; ")
        assert "unsafe-inline'; img" in said, "styles alone"
        assert not re.search("script-src [^;]*unsafe|http|connect|eval", said)
    assert "script-src 'none'" in policy([])


def test_the_library_is_whole_and_may_stand_in_a_page():
    script = vega_script()
    assert len(script) < 1_200_000
    assert "vegaEmbed" in script
    assert "</script" not in script
    assert "<!--" not in script
