"""The cost breakdown: parts add up to their whole, bars share one scale, what was not measured is not drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.tables.costs import costs


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    return load_runs([make_run(tmp_path_factory.mktemp("runs") / "toy")])[0]


def read(entry):
    return float(entry.text.replace(",", ""))


def test_parts_add_up_to_their_whole(run):
    rows = point_rows(run)
    shown = costs(run, rows)
    names = [heading.text for heading in shown.table.headings]
    assert len(shown.table.rows) == len(rows) == 2
    for line, row in zip(shown.table.rows, rows, strict=True):
        value = dict(zip(names[1:], map(read, line[1:]), strict=True))
        assert value["Values"] + value["Header and side information"] == value["Payload"] == row["payload_bytes"]
        assert value["Edge"] + value["Server"] == pytest.approx(value["FLOPs"])
        assert value["Header and side information"] == 27


def test_bars_share_one_scale(run):
    bars = {bar.name: bar for bar in costs(run, point_rows(run)).bars}
    assert sum(part.width for part in bars["plain"].payload) == 100
    assert sum(part.width for part in bars["merged"].payload) == pytest.approx(40)
    assert sum(part.width for part in bars["merged"].flops) == pytest.approx(75)
    assert [part.name for part in bars["plain"].flops] == ["edge", "server"]
    assert bars["merged"].payload_total == "400 byte"


def test_threat_models_cost_nothing_and_channels_are_told_where_they_do(run):
    rows = point_rows(run)
    again = [dict(row, threat_model="other") for row in rows]
    assert len(costs(run, [*rows, *again]).bars) == 2
    dearer = [dict(row, channel="fading", payload_bytes=row["payload_bytes"] + 1) for row in rows]
    shown = costs(run, [*rows, *dearer])
    assert [(bar.name, bar.detail) for bar in shown.bars[1:3]] == [
        ("merged", "channel ideal"),
        ("plain", "channel fading"),
    ]


def test_what_was_not_measured_is_no_zero(run):
    rows = [dict(row, payload_bytes=float("nan"), gflops_edge=float("nan")) for row in point_rows(run)]
    shown = costs(run, rows)
    assert {bar.payload_total for bar in shown.bars} == {"unscored"}
    for bar in shown.bars:
        assert [part.name for part in bar.payload] == []
        assert bar.flops == ()
    assert {line[2].text for line in shown.table.rows} == {"unscored"}


def test_stages_of_a_language_model_have_columns_of_their_own(run):
    rows = point_rows(run)
    assert "Prefill" not in [heading.text for heading in costs(run, rows).table.headings]
    shown = costs(replace(run, cells=run.cells.assign(gflops_prefill=0.25)), rows)
    at = [heading.text for heading in shown.table.headings].index("Prefill")
    assert {line[at].text for line in shown.table.rows} == {"0.250"}
