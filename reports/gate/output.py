"""What a gate leaves behind: Markdown for a pull request, JSON for tools, JUnit XML for CI."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from leakgauge.harness.store.run_folder import write_atomic
from leakgauge.reports.gate.check import Check, Gate, Outcome
from leakgauge.reports.notation import bounds
from leakgauge.reports.tables.pipe_table import escape, table
from leakgauge.reports.tables.table import Grid, Heading, Tone, Value, figure, words

OUTCOME_TONES: dict[str, Tone] = {"pass": "good", "exceeds": "bad", "cannot tell": "warn"}
_HEADLINES = {
    "pass": "pass: nothing is worse than allowed",
    "exceeds": "FAIL: worse than allowed",
    "cannot tell": "CANNOT TELL, which fails",
}
_FIRST: tuple[Outcome, ...] = ("exceeds", "cannot tell", "pass")
# What XML 1.0 cannot hold is replaced, whatever a plug-in calls itself.
_PLAIN = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 65534, 65535), "�")


def headline(gate: Gate) -> str:
    """Says in a line how the gate ended."""
    counts = Counter(check.outcome for check in gate.checks)
    found = ", ".join(f"{counts[outcome]} {outcome}" for outcome in _FIRST if counts[outcome])
    said = _HEADLINES[gate.outcome]
    if gate.outcome == "pass" and gate.by_lower_bounds:
        checks = "check" if gate.by_lower_bounds == 1 else "checks"
        said = f"pass, by lower bounds only in {gate.by_lower_bounds} {checks}: no bound rose, which proves no privacy"
    return f"{said} ({found or 'no checks'})"


def _shown(check: Check) -> list[Value]:
    digits = 2 if check.measure is None else max(0, check.measure.digits - 1)
    lo_hi = bounds(check.lo, check.hi, digits, signed=not math.isnan(check.base))
    signed = not math.isnan(check.base)
    return [
        Value(check.said, "", check.outcome, "warn" if check.rests_on else OUTCOME_TONES[check.outcome]),
        words(check.place),
        words(check.measure.name if check.measure else "all", check.measure.unit if check.measure else ""),
        words(check.rule),
        figure(check.base, digits),
        figure(check.new, digits),
        figure(check.change, digits, signed=signed, detail=lo_hi) if signed else words("", lo_hi),
        words(check.why),
    ]


def gate_grid(gate: Gate, *, failures_only: bool = False) -> Grid:
    """Returns the checks as a table, the failed ones first."""
    chosen = [check for check in gate.checks if not (failures_only and check.outcome == "pass")]
    ordered = sorted(chosen, key=lambda check: _FIRST.index(check.outcome))
    names = ("Outcome", "Where", "Measure", "Limit")
    headings = [Heading(name, numeric=False) for name in names]
    headings += [Heading("Baseline"), Heading("Now"), Heading("Change"), Heading("Why", numeric=False)]
    return Grid(f"Gate of {gate.run}", headings, [_shown(check) for check in ordered])


def gate_markdown(gate: Gate) -> str:
    """Writes the summary for a pull request: what failed in full, what passed folded away."""
    blocks = [f"### leakgauge: {headline(gate)}"]
    if gate.outcome != "pass" and gate.checks:
        blocks.append(table(gate_grid(gate, failures_only=True)))
    blocks += ["\n".join(f"- {escape(note)}" for note in gate.notes)] if gate.notes else []
    if gate.checks:
        blocks.append("<details><summary>All checks</summary>\n\n" + table(gate_grid(gate)) + "\n\n</details>")
    return "\n\n".join(blocks) + "\n"


def _data(check: Check) -> dict[str, Any]:
    numbers = {name: getattr(check, name) for name in ("base", "new", "change", "lo", "hi", "p")}
    return {
        "place": check.place,
        "measure": check.measure.name if check.measure else None,
        "unit": check.measure.unit if check.measure else None,
        "rule": check.rule,
        "outcome": check.outcome,
        "said": check.said,
        "rests_on": check.rests_on,
        "why": check.why,
        "n": check.n,
        "images_needed": check.images_needed,
        **{name: None if math.isnan(value) else value for name, value in numbers.items()},
    }


def gate_json(gate: Gate) -> str:
    """Writes everything as JSON; null is unscored."""
    data = {
        "schema_version": 1,
        "run": gate.run,
        "outcome": gate.outcome,
        "exit_code": gate.exit_code,
        "by_lower_bounds": gate.by_lower_bounds,
        "notes": list(gate.notes),
        "checks": [_data(check) for check in gate.checks],
    }
    return json.dumps(data, indent=1) + "\n"


def gate_junit(gate: Gate) -> bytes:
    """Writes JUnit XML: a test case a check; what exceeds is a failure, what cannot be told an error."""
    counts = Counter(check.outcome for check in gate.checks)
    totals = {"failures": str(counts["exceeds"]), "errors": str(counts["cannot tell"]), "tests": str(len(gate.checks))}
    root = ElementTree.Element("testsuites", totals)
    suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(f"leakgauge gate {gate.run}"), **totals})
    for check in gate.checks:
        name = f"{check.measure.name if check.measure else 'all'}: {check.rule}"
        case = ElementTree.SubElement(suite, "testcase", {"classname": _xml(check.place), "name": _xml(name)})
        if check.outcome != "pass":
            kind = "failure" if check.outcome == "exceeds" else "error"
            text = " ".join(f"{v.text} {v.detail}".strip() for v in _shown(check) if v.text or v.detail)
            ElementTree.SubElement(case, kind, {"message": _xml(check.why or check.said)}).text = _xml(text)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _xml(text: str) -> str:
    return text.translate(_PLAIN)


def write_gate(gate: Gate, json_to: Path | None, junit_to: Path | None, markdown_to: Path | None) -> list[Path]:
    """Writes the files that are asked for; returns their paths.

    Raises:
        StoreError: One cannot be written.
    """
    wanted = (
        (json_to, gate_json(gate).encode()),
        (junit_to, gate_junit(gate)),
        (markdown_to, gate_markdown(gate).encode()),
    )
    for path, data in wanted:
        if path is not None:
            write_atomic(path, data)
    return [path for path, _ in wanted if path is not None]
