"""What a run rests on, so that its numbers may be compared with those of another run or of a baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from leakgauge.reports.analysis.run import LoadedRun

IDENTITIES = {"task": "task or its version", "victim": "victim's weights", "split_evaluation": "evaluation images"}
"""The entries under ``data`` of run.json that must agree before numbers may be compared, and what they stand for."""
JUDGED = "judge_"
"""Begins the names of all measures that are a judge's."""


def identity_of(run: LoadedRun) -> dict[str, str]:
    """Returns what must agree before numbers of two runs may be compared, as a baseline keeps it too.

    Under the names of ``IDENTITIES`` what all numbers rest on: task and version, weights, evaluation images. Beside
    them the ``judge``, and each metric of the run's own, which only their own scores rest on: see ``other_scorer``.
    """
    data = run.manifest.get("data") or {}
    return {name: str(data.get(name, "")) for name in IDENTITIES} | {"judge": _judge(run)} | _own_metrics(run)


def _own_metrics(run: LoadedRun) -> dict[str, str]:
    """States the run's own metrics: unit and direction, which must agree before their numbers may be compared."""
    return {f"metric {score.name}": f"{score.unit}, leaks when {score.leaks_when}" for score in run.own_scores}


def _judge(run: LoadedRun) -> str:
    """Returns the judge's name with the hash of its weights; empty for a run before there were judges.

    A judge that is the victim changes with the victim, which is compared by itself.
    """
    said = run.manifest.get("judge")
    if not isinstance(said, dict):
        return ""
    return " ".join(filter(None, (str(said.get("name", "")), str(said.get("weights_sha256", ""))[:16])))


def other_scorer(name: str, base: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Says that a measure cannot be compared because another judge or metric scored it; empty where it can.

    Args:
        name: The measure.
        base: The identity of the base, as ``identity_of`` gives it.
        new: That of the new run.
    """
    then, now = (stated.get("judge", "") for stated in (base, new))
    if name.startswith(JUDGED) and then != now:
        return f"another judge: {then or 'none'}, now {now or 'none'}"
    theirs, ours = (stated.get(f"metric {name}", "") for stated in (base, new))
    return (
        f"another metric of that name: {theirs} in the base, {ours} now" if theirs and ours and theirs != ours else ""
    )


def grants_of(run: LoadedRun, threat_model: str) -> dict[str, Any]:
    """Returns what a threat model grants."""
    chosen = next((m for m in run.suite.threat_models if m.name == threat_model), None)
    return {} if chosen is None else as_json(chosen.model_dump(mode="json", exclude={"name"}))


def as_json(data: Any) -> dict[str, Any]:
    """Returns data as JSON would give them back, so that what is read compares equal."""
    plain: dict[str, Any] = json.loads(json.dumps(data, sort_keys=True, default=str))
    return plain
