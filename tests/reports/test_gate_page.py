"""The gate's page: how it ended, what did not pass, pictures of what leaks most there."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.harness.errors import LeakgaugeError
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.gate.baseline import baseline_of, read_baseline, write_baseline
from leakgauge.reports.gate.gate import judge
from leakgauge.reports.gate.limits import Limits
from leakgauge.reports.gate.page import most_leaking, reasons

LENIENT = "minimum_images: 2\nlower_bounds: judge\n"


@pytest.fixture(scope="module")
def folder(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def baseline(folder, tmp_path):
    """A baseline that leaked 3 dB less at ``plain``."""
    path = tmp_path / "base.json"
    write_baseline(baseline_of(load_runs([folder])[0], ()), path)
    stated = json.loads(path.read_text())
    for point in stated["points"]:
        if point["operating_point"] == "plain":
            recorded = point["measures"]["leakage"]
            recorded["images"] = [value - 3.0 for value in recorded["images"]]
            for name in ("leakage", "leakage_p95"):
                recorded = point["measures"][name]
                recorded |= {end: recorded[end] - 3.0 for end in ("mean", "lo", "hi")}
    path.write_text(json.dumps(stated))
    return path


def gated(folder, baseline, tmp_path, *more):
    (tmp_path / "limits.yaml").write_text(LENIENT)
    page = tmp_path / "gate.html"
    command = ["gate", str(folder.path), "--baseline", str(baseline), "--limits", str(tmp_path / "limits.yaml")]
    done = CliRunner().invoke(app, [*command, "--html", str(page), *more])
    return done, page.read_text() if page.is_file() else ""


def test_what_leaks_more_is_shown(folder, baseline, tmp_path):
    done, page = gated(folder, baseline, tmp_path)
    assert done.exit_code in {1, 3}, done.output
    assert "What did not pass" in page
    assert "rebuilt by" in page
    assert page.count('<img src="data:image/png') >= 2
    assert "no pictures" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_pictures_are_those_that_leak_most(folder):
    run = load_runs([folder])[0]
    limits = Limits.model_validate({"minimum_images": 2, "absolute": [{"measure": "leakage", "at_most": -100.0}]})
    found = judge(run, None, limits)
    assert most_leaking(found, run)
    for one in most_leaking(found, run):
        values = [float(text.split()[0].replace("\N{MINUS SIGN}", "-")) for text in one.leakage]
        assert values == sorted(values, reverse=True)
        assert len(one.originals) == len(one.rebuilt) == len(values)


def test_a_gate_that_passes_folds_nothing_away(folder, tmp_path):
    path = tmp_path / "same.json"
    write_baseline(baseline_of(load_runs([folder])[0], ()), path)
    _, page = gated(folder, path, tmp_path)
    assert "checks</summary>" in page


@pytest.mark.parametrize("name", ["base.json", "limits.yaml"])
def test_the_page_writes_over_no_input(folder, baseline, tmp_path, name):
    done, _ = gated(folder, baseline, tmp_path, "--html", str(tmp_path / name))
    assert isinstance(done.exception, LeakgaugeError)
    assert "--html" in str(done.exception)
    assert (tmp_path / name).read_text().strip().startswith(("{", "minimum"))


def test_reasons_stand_once_and_pictures_beside_what_the_baseline_recorded(folder, baseline):
    run = load_runs([folder])[0]
    known = read_baseline(baseline)
    found = judge(run, known, Limits.model_validate({"minimum_images": 2, "lower_bounds": "judge"}))
    told = reasons(found)
    assert len(told) == len(set(told))
    assert sum(int(text.split(", ")[1].split()[0]) for text in told if text.startswith("cannot tell")) == sum(
        check.outcome == "cannot tell" for check in found.checks
    )
    (plain,) = [one for one in most_leaking(found, run, known) if one.name == "plain"]
    now, before = ([float(text.split()[0]) for text in texts] for texts in (plain.leakage, plain.before))
    assert [a - b for a, b in zip(now, before, strict=True)] == pytest.approx([3.0] * len(now), abs=0.11)
