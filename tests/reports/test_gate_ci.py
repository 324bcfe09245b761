"""What CI services read of a gate: annotations that nothing breaks out of, step summary, SARIF, new baselines."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from simulated_runs import SCRIPT, Simulation, simulated
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.reports.gate.baseline import baseline_of, read_baseline, write_baseline
from leakgauge.reports.gate.ci import MAX_ANNOTATIONS, annotation_lines, gate_sarif
from leakgauge.reports.gate.gate import judge
from leakgauge.reports.gate.limits import Limits


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return baseline_of(simulated(tmp_path_factory.mktemp("base") / "run"))


@pytest.fixture
def worse(tmp_path, base):
    return judge(simulated(tmp_path / "worse", seed=1, shift=1.0), base, Limits())


@pytest.fixture
def outside(monkeypatch):
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def gate(tmp_path, base, *options, shift=1.0, **changes):
    path = tmp_path / "baseline.json"
    if not path.exists():
        write_baseline(base, path)
    Simulation(seed=1, shift=shift, **changes).write(tmp_path / "run")
    return CliRunner().invoke(app, ["gate", str(tmp_path / "run"), "--baseline", str(path), *options])


def test_each_failed_check_is_one_line(worse, tmp_path):
    failed = [check for check in worse.checks if check.outcome != "pass"]
    lines = annotation_lines(worse, tmp_path / "baseline.json")
    assert len(lines) == min(len(failed), MAX_ANNOTATIONS)
    assert lines[0].startswith("::error file=")
    assert "leaks more" in lines[0]
    assert all("\n" not in line for line in lines)


def test_no_name_breaks_out_of_its_line(worse):
    hostile = replace(worse.checks[0], outcome="exceeds", place=f"a%0A::set-output\r\n::error ::{SCRIPT}")
    (line,) = annotation_lines(replace(worse, checks=(hostile,)))
    assert "\n" not in line
    assert "\r" not in line
    assert "%250A::set-output" in line
    assert line.startswith("::error title=leakgauge%3A exceeds::")


def test_no_more_than_are_shown_and_the_rest_is_counted(worse):
    failed = replace(worse.checks[0], outcome="cannot tell")
    lines = annotation_lines(replace(worse, checks=(failed,) * 25))
    assert len(lines) == MAX_ANNOTATIONS
    assert "16 more checks failed" in lines[-1]


def test_sarif_has_a_result_for_each_failed_check(worse, tmp_path):
    document = json.loads(gate_sarif(worse, tmp_path / "b.json"))
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    failed = [check for check in worse.checks if check.outcome != "pass"]
    assert len(run["results"]) == len(failed)
    for result in run["results"]:
        assert result["ruleId"] in rules
        assert result["level"] in {"error", "warning"}
        assert result["message"]["text"]
        where = result["locations"][0]["physicalLocation"]
        assert where["artifactLocation"]["uri"]
        assert where["region"]["startLine"] == 1
    prints = [result["partialFingerprints"]["check/v1"] for result in run["results"]]
    assert len(set(prints)) == len(prints)


def test_a_gate_that_passes_has_no_results(tmp_path, base):
    passed = judge(simulated(tmp_path / "run"), base, Limits())
    assert json.loads(gate_sarif(passed, tmp_path))["runs"][0]["results"] == []
    assert annotation_lines(passed) == []


@pytest.mark.usefixtures("outside")
def test_github_is_told_in_its_jobs_or_on_request(tmp_path, base, monkeypatch):
    assert "::error" not in gate(tmp_path, base).stdout
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    done = gate(tmp_path, base, "--github")
    assert done.exit_code == 1
    assert "::error file=" in done.stdout
    assert summary.read_text().startswith("before\n### leakgauge: FAIL")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert "::error" in gate(tmp_path, base).stdout
    assert "::error" not in gate(tmp_path, base, "--no-github").stdout


@pytest.mark.usefixtures("outside")
def test_an_update_accepts_the_run_and_counts_the_same_attacks(tmp_path, base):
    assert gate(tmp_path, base).exit_code == 1
    done = gate(tmp_path, base, "--update-baseline", "--sarif", str(tmp_path / "g.sarif"))
    assert done.exit_code == 0, done.output
    assert "written anew" in done.output
    assert json.loads((tmp_path / "g.sarif").read_text())["runs"][0]["results"], "what was judged is still told"
    assert read_baseline(tmp_path / "baseline.json").counted == base.counted
    assert gate(tmp_path, base).exit_code == 0


@pytest.mark.usefixtures("outside")
def test_no_update_without_a_baseline_or_from_a_run_that_is_not_complete(tmp_path, base):
    Simulation(status="running").write(tmp_path / "run")
    lone = CliRunner().invoke(app, ["gate", str(tmp_path / "run"), "--update-baseline"])
    assert "no baseline to update" in str(lone.exception)
    before = tmp_path / "baseline.json"
    write_baseline(base, before)
    kept = before.read_bytes()
    ended = gate(tmp_path, base, "--update-baseline", status="running")
    assert "not complete" in str(ended.exception)
    assert before.read_bytes() == kept
