"""Two runs that other code measured are told apart beside what they measured: by compare, and by the gate."""

from __future__ import annotations

import pytest
from simulated_runs import Simulation

from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.comparison.compare import compare
from leakgauge.reports.gate.baseline import baseline_of, read_baseline, write_baseline
from leakgauge.reports.gate.gate import judge
from leakgauge.reports.gate.limits import Limits

CODE = {"harness": "aaaa", "attacks": "bbbb", "torch": "2.14"}
CASES = {
    "the same": (CODE, CODE, None),
    "a package": (CODE, {**CODE, "torch": "2.15"}, "the code differs: torch (2.14, now 2.15)"),
    "two": ({**CODE, "mine": "cc"}, {**CODE, "attacks": "dd"}, "the code differs: attacks (bbbb, now dd), mine (cc, "),
    "one is silent": (CODE, {}, "whether the code is the same cannot be told: {new} does not state it"),
    "the other is": ({}, CODE, "whether the code is the same cannot be told: {base} does not state it"),
    "both are": ({}, {}, None),
}


def measured_by(folder, code):
    run = Simulation(n=30).write(folder)
    if code:
        # A digest a cell's code; the cells of a run need not all be measured by one.
        run.write_manifest({**run.manifest(), "code": {"digest": {"harness": "aaaa"}, "another": code}})
    return load_runs([run])[0]


@pytest.mark.parametrize("case", CASES)
def test_compare_says_where_the_code_differs(tmp_path, case):
    base, new, said = CASES[case]
    found = compare(measured_by(tmp_path / "a", base), measured_by(tmp_path / "b", new))
    assert len(found.notes) == (said is not None)
    assert said is None or found.notes[0].startswith(said.format(base="a", new="b"))
    assert {row.outcome for row in found.rows} == {"identical"}, "a note, and no doubt of the numbers"


@pytest.mark.parametrize("case", CASES)
def test_the_gate_says_where_the_code_differs(tmp_path, case):
    base, new, said = CASES[case]
    write_baseline(baseline_of(measured_by(tmp_path / "a", base)), tmp_path / "baseline.json")
    found = judge(measured_by(tmp_path / "b", new), read_baseline(tmp_path / "baseline.json"), Limits())
    assert len(found.notes) == (said is not None)
    assert said is None or found.notes[0].startswith(said.format(base="the baseline", new="the run"))
    assert found.outcome == "pass"
