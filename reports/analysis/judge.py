"""Which judge a run had, and whose scores may be compared."""

from __future__ import annotations

from leakgauge.reports.analysis.run import LoadedRun

JUDGED = "judge_"
"""Begins the names of all measures that are a judge's."""


def judge_of(run: LoadedRun) -> str:
    """Returns the judge's name with the hash of its weights; empty for a run before there were judges.

    A judge that is the victim changes with the victim, which is compared by itself.
    """
    said = run.manifest.get("judge")
    if not isinstance(said, dict):
        return ""
    return " ".join(filter(None, (str(said.get("name", "")), str(said.get("weights_sha256", ""))[:16])))


def judge_note(run: LoadedRun) -> str:
    """Says whose re-identification stands in a report."""
    said = run.manifest.get("judge")
    if not isinstance(said, dict):
        return "This run had no judge beside the victim, whose own features say what is re-identified."
    name, features = str(said.get("name", "not stated")), str(said.get("features", "")).strip()
    kind = "independent of the victim" if said.get("independent") else "not independent: what it knows is the victim's"
    shown = f"{name} ({features}; {kind})" if features else f"{name} ({kind})"
    text = f"The judge of re-identification and agreement is {shown}; beside it stands what the victim recognises."
    if said.get("unscored"):
        text += f" It is unscored: {said['unscored']}."
    return text


def other_judge(name: str, before: str, now: str) -> str:
    """Says that a measure cannot be compared because its judge is another; empty where it can.

    Args:
        name: The measure.
        before: The judge then, as ``judge_of`` gives it.
        now: The judge now.
    """
    if not name.startswith(JUDGED) or before == now:
        return ""
    return f"another judge: {before or 'none'}, now {now or 'none'}"
