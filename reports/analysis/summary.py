"""The summary in words, computed from the tables: as measured, whichever way it falls."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from leakgauge.reports.analysis.run import LoadedRun, Row, Setting, rows_of
from leakgauge.reports.analysis.verdicts.best_known import new_best_known
from leakgauge.reports.analysis.verdicts.point_verdict import GIVEN_WHOLE, bounds_only
from leakgauge.reports.notation import UNSCORED, bounds, is_number, number, percent, plural
from leakgauge.reports.tables.what_was_read import reading_warnings


@dataclass(frozen=True)
class Finding:
    """What was measured on one operating point: its name, where, the sentence and the verdict."""

    point: str
    place: str
    text: str
    verdict: str


@dataclass(frozen=True)
class Summary:
    """The summary of a run.

    Args:
        scope: What was run.
        cautions: What a reader must know before believing the rest; empty where there is nothing.
        baselines: The strongest attack without a defense, a sentence a setting.
        findings: Each defended operating point against its baseline.
    """

    scope: str
    cautions: tuple[str, ...]
    baselines: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def by_place(self) -> dict[str, list[Finding]]:
        """The findings by where they were measured, in order."""
        found: dict[str, list[Finding]] = {}
        for finding in self.findings:
            found.setdefault(finding.place, []).append(finding)
        return found


def _measured(row: Row, name: str, digits: int, unit: str, *, signed: bool = False, scale: float = 1.0) -> str:
    """Writes ``1.20 dB [1.00, 1.40]``."""
    if not is_number(row.get(name)):
        return UNSCORED
    text = f"{number(row[name], digits, signed=signed, scale=scale)} {unit}"
    interval = bounds(row[f"{name}_lo"], row[f"{name}_hi"], digits, signed=signed, scale=scale)
    return f"{text} {interval}".strip().replace(" ", "\N{NO-BREAK SPACE}")


def _direction(row: Row, name: str, up: str, down: str) -> str:
    """Says which way a change points, or that its interval includes zero."""
    lo, hi = (float(row.get(f"{name}_{end}", "nan")) for end in ("lo", "hi"))
    if not (is_number(lo) and is_number(hi)):
        return "no interval"
    if lo == hi == 0:
        return "no change"
    if lo > 0:
        return up
    return down if hi < 0 else "not distinguishable from no change"


def _where(run: LoadedRun, channel: str, model: str) -> str:
    several = len(run.suite.threat_models) > 1
    return f"channel {channel}" + (f", threat model {model}" if several else "")


def _baseline(run: LoadedRun, row: Row) -> str:
    place = _where(run, row["channel"], row["threat_model"])
    if not is_number(row["strongest_psnr_db"]):
        return f"Without a defense ({row['operating_point']}; {place}) no attack was scored."
    text = (
        f"Without a defense ({row['operating_point']}; {place}) the strongest attack reaches "
        f"{_measured(row, 'strongest_psnr_db', 2, 'dB')} PSNR, which is "
        f"{_measured(row, 'strongest_leakage', 2, 'dB')} above the best floor. "
        f"It is {row['strongest_attack']}, the strongest on average and on {percent(row['strongest_share'], 0)} of "
        "the images. "
        f"Task quality is {_measured(row, 'quality', 1, '%', scale=100)}."
    )
    return text + _SHORT.get(_standing(row), "")


_SHORT = {
    "lower bound": " The strongest attack cannot find positions that are hidden from it: a lower bound, so that more "
    "may leak.",
    "inconclusive": " It is not shown that no attack here gets more, so that more may leak.",
    GIVEN_WHOLE: " Images are given away whole, so that more would change nothing.",
}


def _standing(row: Row) -> str:
    """Returns the verdict, or that images are given away whole, where no more than that is conclusive."""
    return GIVEN_WHOLE if row["verdict"] == "conclusive" and not _sure(row) else str(row["verdict"])


def _sure(row: Row) -> bool:
    return not bounds_only(row["verdict"], row.get("reason", ""))


def _article(verdict: str) -> str:
    return "a lower bound" if verdict == "lower bound" else verdict


def _leak_direction(row: Row, baseline: str) -> str:
    """Says which way leakage changed, and claims nothing that a cell leaves open that is not conclusive."""
    return _direction(
        row,
        "leakage_change",
        "it leaks more" if baseline == "conclusive" else f"more is not shown, as the baseline is {_article(baseline)}",
        "it leaks less" if _sure(row) else f"less is not shown, as this point is {_article(_standing(row))}",
    )


def _quality_told(row: Row) -> str:
    if not is_number(row.get("quality_change")):
        return "change of quality unscored"
    change = _measured(row, "quality_change", 1, "points", signed=True, scale=100)
    return f"quality {change} ({_direction(row, 'quality_change', 'better', 'worse')})"


def _leakage_told(row: Row, baseline: str) -> str:
    """Tells change and level of leakage, and of either that it is unscored rather than that it is at least that."""
    if not is_number(row.get("strongest_leakage")):
        return "leakage unscored"
    level = _measured(row, "strongest_leakage", 2, "dB")
    told = f"{'' if _sure(row) else 'at least '}{level} above the best floor"
    if not is_number(row.get("leakage_change")):
        return f"leakage {told}; its change unscored"
    change = _measured(row, "leakage_change", 2, "dB", signed=True)
    return f"leakage {change} ({_leak_direction(row, baseline)}), {told}"


def _finding(run: LoadedRun, row: Row, baseline: str) -> Finding:
    share = number(row["payload_share"], 1, scale=100)
    tokens = number(row["tokens_share"], 1, scale=100)
    sent = f"{share} % of the baseline's payload bytes" if share != UNSCORED else "payload share unscored"
    sent += f", {tokens} % of its tokens" if tokens != UNSCORED else ""
    text = f"{sent}; {_quality_told(row)}; {_leakage_told(row, baseline)}"
    return Finding(row["operating_point"], _where(run, row["channel"], row["threat_model"]), f"{text}.", row["verdict"])


def _cautions(run: LoadedRun, rows: list[Row]) -> tuple[str, ...]:
    said: list[str] = list(reading_warnings(run))
    if run.status != "complete":
        said.append(f"The run is not complete (status: {run.status}); the numbers below may move.")
    statuses: Counter[Any] = Counter(run.cells["status"])
    total = len(run.cells)
    for name, count in sorted(statuses.items()):
        if name != "done":
            verb = "" if name == "failed" else "was " if count == 1 else "were "
            said.append(f"{count} of {plural(total, 'cell')} {verb}{name}.")
    done = run.cells[run.cells["status"] == "done"]
    inconclusive, bounds_only = (int((done["verdict"] == name).sum()) for name in ("inconclusive", "lower bound"))
    if bounds_only:
        verb = "is a lower bound" if bounds_only == 1 else "are lower bounds"
        said.append(
            f"{bounds_only} of {plural(total, 'cell')} {verb}: the attack cannot find positions that are hidden."
        )
    for text in dict.fromkeys(f"{c['attack']} on {c['operating_point']}: {c['warning']}" for c in rows_of(done)):
        said += [] if text.endswith(": ") else [f"Warning: {text}."]
    if inconclusive:
        verb = "is inconclusive and only bounds" if inconclusive == 1 else "are inconclusive and only bound"
        said.append(f"{inconclusive} of {plural(total, 'cell')} {verb} leakage from below.")
    said += [f"{line[0].upper()}{line[1:]}." for line in new_best_known(run)]
    settings = {Setting(row["channel"], row["threat_model"]) for row in rows if row["baseline"] == "yes"}
    for setting in run.settings:
        if setting not in settings:
            place = _where(run, *setting)
            said.append(f"The baseline was not run over {place}; changes there are unscored.")
    said += [f"The tables do not belong together: {fault}." for fault in run.faults]
    if not any(run.is_floor(attack) for attack in run.attacks):
        said.append("The suite has no floor attack, so leakage above the floor is unscored.")
    return tuple(said)


def summarise(run: LoadedRun, rows: list[Row]) -> Summary:
    """Puts the operating-point rows of a run in words."""
    images = run.task.get("evaluation_images", "an unstated number of")
    floors = sum(run.is_floor(attack) for attack in run.attacks)
    suite = run.suite
    scope = (
        f"{plural(len(suite.operating_points), 'operating point')}, {plural(len(suite.channels), 'channel')} and "
        f"{plural(len(run.attacks), 'attack')} ({floors} of them {'a floor' if floors == 1 else 'floors'}), "
        f"{plural(len(run.cells), 'cell')} in all, on {images} evaluation images of {run.task.get('name', 'the task')}"
        f"; victim {run.task.get('victim', 'not stated')}; "
        f"quality is {run.task.get('quality_name', 'not stated')}. Brackets hold 95 % bootstrap intervals."
    )
    baselines = tuple(_baseline(run, row) for row in rows if row["baseline"] == "yes")
    verdicts = {(row["channel"], row["threat_model"]): _standing(row) for row in rows if row["baseline"] == "yes"}
    findings = tuple(
        _finding(run, row, verdicts.get((row["channel"], row["threat_model"]), "inconclusive"))
        for row in rows
        if row["baseline"] == "no"
    )
    return Summary(scope, _cautions(run, rows), baselines, findings)
