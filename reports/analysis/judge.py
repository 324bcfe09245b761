"""Which judge a run had, in words."""

from __future__ import annotations

from leakgauge.reports.analysis.run import LoadedRun


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
