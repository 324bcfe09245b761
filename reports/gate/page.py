"""The page of a gate: how it ended, what is worse than allowed, and what leaks most now, in pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from jinja2 import Environment
from markupsafe import Markup

from leakgauge.reports.analysis.run import LoadedRun, Setting
from leakgauge.reports.analysis.strongest import candidates, strongest_rows
from leakgauge.reports.comparison.side_by_side import originals, rebuilt
from leakgauge.reports.gate.baseline import Baseline
from leakgauge.reports.gate.check import Gate
from leakgauge.reports.gate.output import OUTCOME_TONES, gate_grid, headline
from leakgauge.reports.notation import UNSCORED, is_number, number, plural
from leakgauge.reports.writers.gallery import Picture
from leakgauge.reports.writers.page_scripts import policy

PICTURES = 5


@dataclass(frozen=True)
class MostLeaking:
    """The images that leak most at an operating point: originals, what is rebuilt, leakage of each, now and before.

    ``before`` is what the baseline recorded; empty without one.
    """

    name: str
    where: str
    originals: tuple[Picture, ...]
    rebuilt: tuple[Picture, ...]
    leakage: tuple[str, ...]
    before: tuple[str, ...] = ()


def gate_html(
    environment: Environment, gate: Gate, run: LoadedRun, against: str, baseline: Baseline | None = None
) -> str:
    """Writes the page.

    Args:
        environment: Where templates are found.
        gate: What the gate found.
        run: The run that was judged.
        against: The baseline file, of which numbers are known and no pictures; empty without one.
        baseline: What it holds.
    """
    scripts = [Markup(environment.get_template("page.js.j2").render())]
    failed = gate_grid(gate, failures_only=True)
    return environment.get_template("gate.html.j2").render(
        gate=gate,
        headline=headline(gate),
        tone=OUTCOME_TONES[gate.outcome],
        against=against,
        failed=failed if failed.rows else None,
        checks=gate_grid(gate),
        pictures=most_leaking(gate, run, baseline),
        reasons=reasons(gate),
        scripts=scripts,
        policy=policy(scripts),
    )


def reasons(gate: Gate) -> list[str]:
    """Says why checks did not pass: what is worse first, then each reason once, with how many checks it concerns."""
    worse = [check for check in gate.checks if check.outcome == "exceeds"]
    said = [
        f"{check.said}: {check.place}: {check.measure.name} {number(check.new, 2)}{was}, allowed {check.rule}"
        for check in worse
        if check.measure is not None
        for was in [f", was {number(check.base, 2)}" if is_number(check.base) else ""]
    ]
    counted = Counter(check.why for check in gate.checks if check.outcome == "cannot tell")
    return [*said, *(f"cannot tell, {plural(count, 'check')}: {why}" for why, count in counted.most_common())]


def most_leaking(gate: Gate, run: LoadedRun, baseline: Baseline | None = None) -> list[MostLeaking]:
    """Returns the images that leak most now at each operating point whose leakage did not pass, in their order."""
    failing = {check.place for check in gate.checks if check.outcome != "pass" and _of_leakage(check.measure)}
    found = []
    for setting in run.settings:
        for point in run.points_at(setting):
            place = f"{point}, {setting.said}"
            if place not in failing or not candidates(run, point, setting):
                continue
            best = strongest_rows(run, point, setting)
            best = best[(best["seed"] == run.suite.seeds[0]) & best["leakage"].notna()]
            worst = best.sort_values(["leakage", "image"], ascending=[False, True], kind="stable")[:PICTURES]
            chosen = [str(image) for image in worst["image"]]
            told = tuple(f"{number(value, 1)} dB" for value in worst["leakage"])
            where = setting.said
            pictures = rebuilt(run, best, chosen, point)
            before = _before(baseline, (point, setting), chosen)
            found.append(MostLeaking(point, where, originals(run, chosen), pictures, told, before))
    return found


def _before(baseline: Baseline | None, key: tuple[str, Setting], images: list[str]) -> tuple[str, ...]:
    """Returns the leakage that the baseline recorded of some images."""
    points = () if baseline is None else baseline.points
    for point in points:
        values = None if baseline is None or point.key != key else baseline.values(point, "leakage")
        if values is not None:
            known = values.reindex(images)
            return tuple(f"{number(value, 1)} dB" if is_number(value) else UNSCORED for value in known)
    return ()


def _of_leakage(measure: object) -> bool:
    """Tells whether a check speaks of leakage: one without a measure speaks of the whole operating point."""
    return measure is None or getattr(measure, "kind", "") == "leakage"
