"""Limits that a gate enforces, as read from YAML: how much worse than the baseline, and how much at all."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from leakgauge.harness.errors import suggest
from leakgauge.harness.run.preview.budgets import MINIMUM_IMAGES
from leakgauge.harness.scoring.measures import COLUMN_NAME
from leakgauge.harness.suite.configuration import read_file
from leakgauge.harness.suite.schema_problems import validated
from leakgauge.harness.suite.text_source import TextSource
from leakgauge.harness.system.plain_text import quoted
from leakgauge.reports.analysis.measures import MEASURES, PROBE, Measure


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _known(name: Any) -> Any:
    """Refuses what can be no measure; whether a run has it, as a metric of its own, the gate finds out."""
    if isinstance(name, str) and not (name in MEASURES or name.startswith(PROBE) or COLUMN_NAME.fullmatch(name)):
        raise ValueError(f"unknown measure {name!r} ({suggest(name, [*MEASURES, PROBE + '*'])})")
    return name


MeasureName = Annotated[str, BeforeValidator(_known)]


Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Amount(_Strict):
    """By how much: in the unit of the measure, or as a share of the baseline's mean. Written ``0.5`` or ``2 %``."""

    value: float = Field(ge=0, allow_inf_nan=False)
    relative: bool = False

    @model_validator(mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        if isinstance(value, str) and value.strip().endswith("%"):
            try:
                return {"value": float(value.strip()[:-1]) / 100, "relative": True}
            except ValueError:
                raise ValueError(f"{value!r} is no percentage such as 2 %") from None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return {"value": value}
        if not isinstance(value, (dict, cls)):
            raise ValueError(f"{quoted(value)} is no amount such as 0.5 or 2 %")  # noqa: TRY004 - pydantic's
        return value

    def of(self, mean: float) -> float:
        """Returns the amount in the unit of the measure, given the baseline's mean."""
        return self.value * abs(mean) if self.relative else self.value

    def __str__(self) -> str:
        """Writes it as it was read."""
        return f"{self.value * 100:g} %" if self.relative else f"{self.value:g}"


Allowances = dict[MeasureName, Amount | None]
"""By measure; None checks a measure not at all. ``probe *`` stands for every probe without an entry of its own."""

DEFAULT_ALLOWANCES: Allowances = {
    "leakage": Amount(value=0.5),
    "ssim": Amount(value=0.03),
    "lpips": Amount(value=0.03),
    "judge_reid_top1": Amount(value=0.1),
    "reid_top1": Amount(value=0.1),
    "probe *": Amount(value=0.1),
    "quality": Amount(value=0.03),
    "payload_bytes": Amount(value=0.02, relative=True),
    "side_bytes": Amount(value=0.02, relative=True),
    "channel_uses": Amount(value=0.02, relative=True),
    "gflops_total": Amount(value=0.05, relative=True),
}


class Absolute(_Strict):
    """One limit on the mean itself; patterns such as ``threshold_*`` choose what it is for."""

    measure: MeasureName
    operating_point: str = "*"
    channel: str = "*"
    threat_model: str = "*"
    at_most: Number | None = None
    at_least: Number | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give one of at_most, at_least")
        return self

    def covers(self, point: str, channel: str, threat_model: str) -> bool:
        """Tells whether the limit is for an operating point in a setting."""
        pairs = ((point, self.operating_point), (channel, self.channel), (threat_model, self.threat_model))
        return all(fnmatchcase(name, pattern) for name, pattern in pairs)

    @property
    def text(self) -> str:
        """Says it: ``at most 9``."""
        return f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"


class Limits(_Strict):
    """All that a gate enforces.

    Args:
        minimum_images: Images that both runs must have scored; with fewer the gate cannot tell.
        inconclusive: What an inconclusive attack means: that the gate cannot tell, or (``judge``) that what it rebuilt
            is compared with what another of the same budget did; much less still cannot be told.
        lower_bounds: What it means where the strongest attack converged but cannot find positions that are hidden: that
            the gate cannot tell, or (``judge``) that one such bound is compared with another; a pass then says that
            it rests on lower bounds.
        worse_by: By how much a measure may be worse than the baseline's; what is not stated has its default.
        points: The same for single operating points.
        absolute: Limits on the means themselves.
    """

    minimum_images: int = Field(default=MINIMUM_IMAGES, ge=2)
    inconclusive: Literal["cannot tell", "judge"] = "cannot tell"
    lower_bounds: Literal["cannot tell", "judge"] = "cannot tell"
    worse_by: Allowances = Field(default_factory=dict)
    points: dict[str, Allowances] = Field(default_factory=dict)
    absolute: tuple[Absolute, ...] = ()

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that the limits name."""
        named = [*self.worse_by, *(name for allowances in self.points.values() for name in allowances)]
        return tuple(dict.fromkeys([*named, *(limit.measure for limit in self.absolute)]))

    def allowance(self, point: str, measure: Measure) -> Amount | None:
        """Returns by how much a measure may be worse at an operating point; None where it is not checked."""
        names = (measure.name, f"{PROBE}*") if measure.name.startswith(PROBE) else (measure.name,)
        for stated in (self.points.get(point, {}), self.worse_by, DEFAULT_ALLOWANCES):
            for name in names:
                if name in stated:
                    return stated[name]
        return None


def parse_limits(data: dict[str, Any], *, where: str = "limits", source: TextSource | None = None) -> Limits:
    """Validates limits.

    Args:
        data: The keys.
        where: What errors call it.
        source: Where it was read, instead.

    Raises:
        ConfigError: It does not fit the schema; several problems are told at once.
    """
    source = TextSource(where, data, {}) if source is None else source
    return validated(Limits, data, source)


def read_limits(path: Path) -> Limits:
    """Reads limits from a YAML file.

    Raises:
        ConfigError: It is not there, is no YAML, or does not fit the schema; several problems are told at once.
    """
    text, data = read_file(path, "limits")
    return parse_limits(data, source=TextSource.of(str(path), text, data, data))
