"""What a gate tells a CI service: GitHub's annotations and step summary, and SARIF for code scanning."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from leakgauge import __version__
from leakgauge.harness.errors import StoreError
from leakgauge.harness.system.plain_text import plain
from leakgauge.reports.gate.check import Check, Gate
from leakgauge.reports.gate.output import gate_markdown, headline

MAX_ANNOTATIONS = 10
"""As many as GitHub shows of a step; the summary holds all."""
SUMMARY = "GITHUB_STEP_SUMMARY"
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {"exceeds": "error", "cannot tell": "warning"}
_RULES = {
    "exceeds": ("leaks-more", "A measure lies beyond what the baseline or the limits allow."),
    "cannot tell": ("cannot-tell", "A measure cannot be judged: unscored, inconclusive, missing or not comparable."),
}


def on_github() -> bool:
    """Tells whether this is a job of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def _failed(gate: Gate) -> list[Check]:
    return [check for outcome in ("exceeds", "cannot tell") for check in gate.checks if check.outcome == outcome]


def _message(check: Check) -> str:
    name = check.measure.name if check.measure else "all measures"
    return plain(f"{check.place}: {name}: {check.said}, limit {check.rule}" + (f" ({check.why})" if check.why else ""))


def annotation_lines(gate: Gate, file: Path | None = None) -> list[str]:
    """Returns workflow commands, a line each, the worst first: an error what exceeds, a warning what cannot be told.

    Args:
        gate: The gate.
        file: What the lines point to, the baseline say; nothing if None.
    """
    place = f"file={_property(_relative(file))}," if file is not None else ""
    failed = _failed(gate)
    lines = [
        f"::{_LEVELS[check.outcome]} {place}title={_property('leakgauge: ' + check.outcome)}::{_data(_message(check))}"
        for check in failed[:MAX_ANNOTATIONS]
    ]
    if len(failed) > MAX_ANNOTATIONS:
        lines[-1] = f"::error title=leakgauge::{len(failed) - MAX_ANNOTATIONS + 1} more checks failed; see the summary"
    return lines


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _relative(path: Path) -> str:
    """Returns a path from the working directory, which is where a service looks for files of the repository."""
    return Path(os.path.relpath(path)).as_posix()


def add_step_summary(gate: Gate) -> Path | None:
    """Appends the gate's Markdown to the job's summary; returns the file, None where there is none.

    Raises:
        StoreError: It cannot be written.
    """
    named = os.environ.get(SUMMARY)
    if not named:
        return None
    try:
        with Path(named).open("a", encoding="utf-8") as file:
            file.write(gate_markdown(gate) + "\n")
    except OSError as error:
        raise StoreError(f"cannot be written: {error.strerror or error}", where=f"${SUMMARY}") from error
    return Path(named)


def gate_sarif(gate: Gate, file: Path) -> bytes:
    """Writes SARIF 2.1.0 (OASIS 2020): a result for each check that did not pass, at ``file`` in the repository.

    An alert is recognised by its operating point, measure and limit, so that it closes where the check passes again.
    """
    results = [_result(check, file) for check in _failed(gate)]
    rules = [{"id": name, "shortDescription": {"text": text}} for name, text in _RULES.values()]
    run = {
        "tool": {"driver": {"name": "leakgauge", "version": __version__, "rules": rules}},
        "results": results,
        "properties": {"outcome": gate.outcome, "headline": headline(gate)},
    }
    document = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return (json.dumps(document, indent=1) + "\n").encode()


def _result(check: Check, file: Path) -> dict[str, Any]:
    name = check.measure.name if check.measure else "all"
    where = {"artifactLocation": {"uri": _relative(file)}, "region": {"startLine": 1}}
    return {
        "ruleId": _RULES[check.outcome][0],
        "level": _LEVELS[check.outcome],
        "message": {"text": _message(check)},
        "locations": [{"physicalLocation": where}],
        "partialFingerprints": {"check/v1": plain(f"{check.place} | {name} | {check.rule}")},
    }
