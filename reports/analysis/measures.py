"""What runs are compared by: the measures of an operating point, a value an image."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

from leakgauge.harness.scoring.measures import Score
from leakgauge.reports.analysis.run import LoadedRun, Setting
from leakgauge.reports.analysis.strongest import candidates, image_rows, per_image, strongest_rows
from leakgauge.reports.analysis.verdicts.point_verdict import (
    Ruling,
    Verdict,
    bounds_only,
    doubted_attacks,
    rulings_of_measures,
    verdict_of,
)
from leakgauge.reports.analysis.worst_cases import MARKS, PERCENTILE, leakage_percentile

Kind = Literal["leakage", "quality", "cost"]
PROBE = "probe "


@dataclass(frozen=True)
class Measure:
    """One measure.

    Args:
        name: Its name, as in the tables; ``probe LABEL`` for how often an attribute probe is right.
        unit: Its unit.
        kind: What it speaks of.
        worse: Which way is bad: more leakage, less quality, more cost.
        digits: Decimals that it is kept and shown with.
        percentile: Which percentile over images it is; None for their mean.
    """

    name: str
    unit: str
    kind: Kind
    worse: Literal["higher", "lower"]
    digits: int
    percentile: int | None = None

    @property
    def sign(self) -> int:
        """1 where higher is worse, else -1."""
        return 1 if self.worse == "higher" else -1

    def over(self, values: pd.Series[float]) -> float:
        """Returns what it is over the values of images: their mean, or a percentile; NaN where none is scored."""
        return float(values.mean()) if self.percentile is None else leakage_percentile(values, self.percentile)


_MEASURES = (
    Measure("leakage", "dB", "leakage", "higher", 3),
    Measure("leakage_p95", "dB", "leakage", "higher", 3, PERCENTILE),
    Measure("psnr_db", "dB", "leakage", "higher", 3),
    Measure("ssim", "", "leakage", "higher", 4),
    Measure("lpips", "", "leakage", "lower", 4),
    *(Measure(mark.column, "0..1", "leakage", "higher", 4) for mark in MARKS),
    Measure("judge_reid_top1", "0..1", "leakage", "higher", 4),
    Measure("judge_agreement", "0..1", "leakage", "higher", 4),
    Measure("reid_top1", "0..1", "leakage", "higher", 4),
    Measure("label_agreement", "0..1", "leakage", "higher", 4),
    Measure("quality", "0..1", "quality", "lower", 4),
    Measure("tokens", "tokens/image", "cost", "higher", 2),
    Measure("payload_bytes", "byte/image", "cost", "higher", 1),
    Measure("side_bytes", "byte/image", "cost", "higher", 1),
    Measure("channel_uses", "symbol/image", "cost", "higher", 1),
    Measure("gflops_edge", "GFLOP/image", "cost", "higher", 4),
    Measure("gflops_total", "GFLOP/image", "cost", "higher", 4),
)
MEASURES = {measure.name: measure for measure in _MEASURES}
_BEST_ATTACK = ("judge_reid_top1", "judge_agreement", "reid_top1", "label_agreement")


def measure_of(name: str, own: Collection[Score] = ()) -> Measure:
    """Returns a measure by name, a built-in one or that of one of a run's ``own`` metrics.

    Raises:
        KeyError: There is none of that name.
    """
    for score in own:
        if score.name == name:
            return Measure(name, score.unit, "leakage", score.leaks_when, score.digits + 1)
    if name.startswith(PROBE) and name != PROBE:
        return Measure(name, "0..1", "leakage", "higher", 4)
    return MEASURES[name]


@dataclass(frozen=True)
class MeasuredPoint:
    """An operating point over one channel under one threat model.

    Args:
        point: Name of the operating point.
        setting: Channel and threat model.
        images: Indexed by image: ``group``, and a column a measure, averaged over seeds; NaN is unscored.
        attacks: The attacks that it rests on, floors and probes included.
        verdict: conclusive, lower bound or inconclusive; see ``verdict_of``.
        reason: Why it is not conclusive, or why it is although its attackers do not show it.
        others: Verdicts that single measures rest on instead, by name: those that probes have a part in.
        doubted: Attacks that rebuild and are not shown to be converged, whether or not that decides the verdict.
    """

    point: str
    setting: Setting
    images: pd.DataFrame
    attacks: tuple[str, ...]
    verdict: Verdict
    reason: str
    others: Mapping[str, Ruling] = field(default_factory=dict)
    doubted: tuple[str, ...] = ()

    @property
    def conclusive(self) -> bool:
        """Whether the strongest attack is shown to be as strong as any here gets, and can use all that it was told.

        It is too where that attack gives images away whole.
        """
        return self.verdict == "conclusive"

    @property
    def given_whole(self) -> bool:
        """Whether it is conclusive only because images are given away whole: leakage in dB is bounded from below."""
        return self.conclusive and bounds_only(self.verdict, self.reason)

    def resting_on(self, name: str) -> MeasuredPoint:
        """Returns it with the verdict that a measure rests on."""
        found = self.others.get(name)
        doubted = () if name.startswith(PROBE) else self.doubted
        return self if found is None else replace(self, verdict=found.verdict, reason=found.reason, doubted=doubted)

    @property
    def place(self) -> str:
        """Names it: ``threshold_0.90, channel ideal, threat model server``."""
        return f"{self.point}, {self.setting.said}"

    @property
    def names(self) -> list[str]:
        """The measures that it has, scored or not."""
        return [str(name) for name in self.images.columns if name != "group"]


def measured(run: LoadedRun, attacks: Collection[str] | None = None) -> list[MeasuredPoint]:
    """Returns what a run measured, a value an image.

    Leakage and PSNR are of the strongest attack on average; SSIM, LPIPS, re-identification and agreement, by judge and
    by victim, each of the one attack that is best at it.

    Args:
        run: The run.
        attacks: The attacks that count beside the floors; None for all.
    """
    found = []
    for setting in run.settings:
        for point in run.points_at(setting):
            one = _measured(run, point, setting, attacks)
            if one is not None:
                found.append(one)
    return found


def _measured(run: LoadedRun, point: str, setting: Setting, attacks: Collection[str] | None) -> MeasuredPoint | None:
    cells = [
        cell
        for cell in run.cells_at(setting, point)
        if attacks is None or cell["attack"] in attacks or run.is_floor(str(cell["attack"]))
    ]
    if not cells:
        return None
    labels = list(dict.fromkeys(str(cell["attack"]) for cell in cells))
    rows = image_rows(run, point, setting, labels)
    rebuilding = [label for label in candidates(run, point, setting) if label in labels]
    best = strongest_rows(run, point, setting, rebuilding)
    columns = {name: best.groupby("image", sort=False)[name].mean() for name in per_image(run)}
    columns["leakage_p95"] = columns["leakage"]
    for mark in MARKS:
        reached = best.assign(reached=mark.reached(best[mark.score]))
        columns[mark.column] = reached.groupby("image", sort=False)["reached"].mean()
    attacking = rows[~rows["attack"].isin([label for label in labels if run.is_floor(label)])]
    columns |= {name: _of_the_best(attacking, name) for name in _BEST_ATTACK}
    columns |= {
        name: rows.groupby("image", sort=False)[name].mean()
        for name, measure in MEASURES.items()
        if measure.kind != "leakage"
    }
    for label in labels:
        if run.is_probe(label):
            asked = rows[rows["attack"] == label].groupby("image", sort=False)["attribute_correct"].mean()
            if asked.notna().any():
                columns[f"{PROBE}{label}"] = asked
    groups = rows.groupby("image", sort=False)["group"].first()
    images = pd.DataFrame({"group": groups, **columns}).reindex(groups.index)
    whole = verdict_of(run, cells)
    others = rulings_of_measures(run, cells, whole, PROBE)
    return MeasuredPoint(point, setting, images, tuple(labels), *whole, others, doubted_attacks(run, cells))


def _of_the_best(rows: pd.DataFrame, name: str) -> pd.Series[float]:
    """Returns a value an image of the attack whose mean is the highest; of equal ones the first by name."""
    means = rows.groupby("attack")[name].mean().dropna()
    chosen = rows[rows["attack"] == means.idxmax()] if len(means) else rows
    return chosen.groupby("image", sort=False)[name].mean()
