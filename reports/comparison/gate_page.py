"""The page of a gate: how it ended, what is worse than allowed, and what leaks most now, in pictures."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import Environment
from markupsafe import Markup

from leakgauge.reports.check import Gate
from leakgauge.reports.comparison.side_by_side import originals, rebuilt
from leakgauge.reports.gallery import Picture
from leakgauge.reports.gate_output import OUTCOME_TONES, gate_grid, headline
from leakgauge.reports.loaded import LoadedRun
from leakgauge.reports.notation import number
from leakgauge.reports.page_scripts import policy
from leakgauge.reports.strongest import candidates, strongest_per_image

PICTURES = 5


@dataclass(frozen=True)
class MostLeaking:
    """The images that leak most at an operating point: originals, what is rebuilt, leakage of each."""

    name: str
    where: str
    originals: tuple[Picture, ...]
    rebuilt: tuple[Picture, ...]
    leakage: tuple[str, ...]


def gate_html(environment: Environment, gate: Gate, run: LoadedRun, against: str) -> str:
    """Writes the page.

    Args:
        environment: Where templates are found.
        gate: What the gate found.
        run: The run that was judged.
        against: The baseline file, of which numbers are known and no pictures; empty without one.
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
        pictures=most_leaking(gate, run),
        scripts=scripts,
        policy=policy(scripts),
    )


def most_leaking(gate: Gate, run: LoadedRun) -> list[MostLeaking]:
    """Returns the images that leak most now at each operating point whose leakage did not pass, in their order."""
    failing = {check.place for check in gate.checks if check.outcome != "pass" and _of_leakage(check.measure)}
    found = []
    for setting in run.settings:
        for point in run.points_at(setting):
            place = f"{point}, channel {setting.channel}, threat model {setting.threat_model}"
            if place not in failing or not candidates(run, point, setting):
                continue
            best = strongest_per_image(run, point, setting)
            best = best[(best["seed"] == run.suite.seeds[0]) & best["leakage"].notna()]
            worst = best.sort_values(["leakage", "image"], ascending=[False, True], kind="stable")[:PICTURES]
            chosen = [str(image) for image in worst["image"]]
            told = tuple(f"{number(value, 1)} dB" for value in worst["leakage"])
            where = f"channel {setting.channel}, threat model {setting.threat_model}"
            pictures = rebuilt(run, best, chosen, point)
            found.append(MostLeaking(point, where, originals(run, chosen), pictures, told))
    return found


def _of_leakage(measure: object) -> bool:
    """Tells whether a check speaks of leakage: one without a measure speaks of the whole operating point."""
    return measure is None or getattr(measure, "kind", "") == "leakage"
