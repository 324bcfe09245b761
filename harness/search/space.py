"""The search space: which task and defense, what is searched, by what it is judged, and how long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticKnownError

from leakgauge.harness.contracts.reduction import Searched
from leakgauge.harness.errors import LeakgaugeError, PluginError, suggest
from leakgauge.harness.search.metrics import MetricName
from leakgauge.harness.suite.configuration import read_source
from leakgauge.harness.suite.registry import default_of, load, plugins
from leakgauge.harness.suite.schema import (
    Name,
    NamedPlugin,
    OperatingPoint,
    Plugin,
    PluginConfig,
    ThreatModel,
    default_plugin,
    telling,
)
from leakgauge.harness.suite.schema_problems import refuse, twice, validated
from leakgauge.harness.suite.text_source import TextSource

ScheduleName = Literal["per_layer", "shared", "parametric"]
SamplerName = Literal["gp", "gp_screened", "botorch", "nsga2", "tpe", "random", "sweep", "line"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def searched(family: str) -> Searched | None:
    """Returns how a search sets a reduction; None where it cannot be searched, or is none."""
    found = load("reductions", family) if family in plugins("reductions") else None
    return getattr(found, "searched", None)


def _default_family() -> str:
    return default_of("search", "reductions")


def _families() -> list[str]:
    """Returns the reductions that can be searched, the default first; without those that cannot be imported."""
    found = []
    for name in sorted(plugins("reductions")):
        with suppress(LeakgaugeError):
            found += [name] if searched(name) else []
    return sorted(found, key=lambda name: (name != _default_family(), name))


def _searchable(family: object) -> object:
    if not isinstance(family, str) or searched(family) is None:
        expected = " or ".join(map(repr, _families()))
        raise PydanticKnownError("literal_error", {"expected": expected})
    return family


def _tell_families(schema: JsonDict) -> None:
    schema.update(default=_default_family(), enum=[*_families()])


Family = Annotated[str, BeforeValidator(_searchable)]
"""The reduction whose shares or thresholds are searched."""
_pipeline, _channel = partial(default_plugin, "defenses"), partial(default_plugin, "channels")


class Shares(_Strict):
    """Between which shares of the matches a block may merge."""

    low: float = Field(default=0.0, ge=0, le=1)
    high: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}")
        return self


class Calibration(_Strict):
    """The pinned images that shares become thresholds on: so many of the calibration split, None for all."""

    images: int | None = Field(default=None, ge=1)
    pick: Literal["spread", "first"] = "spread"


class Choices(_Strict):
    """What is searched beside the shares; empty lists search nothing."""

    cut: tuple[Annotated[int, Field(ge=1)], ...] = ()
    codec: tuple[Plugin, ...] = ()
    channel: tuple[Plugin, ...] = ()


class Constraint(_Strict):
    """One limit: ``at_most``, ``at_least``, or ``drop_at_most`` below what the unmodified victim reaches."""

    metric: MetricName
    at_most: float | None = None
    at_least: float | None = None
    drop_at_most: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        stated = [self.at_most, self.at_least, self.drop_at_most]
        if sum(limit is not None for limit in stated) != 1:
            raise ValueError("give one of at_most, at_least, drop_at_most")
        if self.drop_at_most is not None and self.metric != "quality":
            raise ValueError("drop_at_most is for quality, which the unmodified victim has too")
        return self

    @property
    def name(self) -> str:
        """Names the limit, ``payload_bytes at_most``."""
        stated = [key for key in ("at_most", "at_least", "drop_at_most") if getattr(self, key) is not None]
        return f"{self.metric} {stated[0]}"


class Proxy(_Strict):
    """The cheap attack that leakage is measured with.

    Leakage is the mean PSNR in dB of its reconstructions of the search images, above that of ``floors`` which is best
    on average; without floors, the PSNR itself. The proxy is granted the merge map: a linear attack that does not know
    where tokens belong mistakes lost layout for lost information.
    """

    attack: Annotated[NamedPlugin, Field()]
    floors: tuple[NamedPlugin, ...] = ()
    auxiliary: int = Field(default=512, ge=8)
    threat_model: ThreatModel = ThreatModel.model_validate({"knows": {"merge_map": True}})


class Remeasure(_Strict):
    """How the front is measured again, on the evaluation split, as a suite: its attacks, threat models and seeds."""

    attacks: tuple[NamedPlugin, ...] = Field(min_length=1)
    threat_models: tuple[ThreatModel, ...] = (ThreatModel(),)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    evaluation_images: int | None = Field(default=None, ge=1)


class Space(_Strict):
    """A whole search, as read from YAML."""

    name: Name
    description: str = ""
    task: Plugin
    defense: Plugin = Field(default_factory=_pipeline, json_schema_extra=telling(_pipeline))
    channel: Plugin = Field(default_factory=_channel, json_schema_extra=telling(_channel))
    family: Family = Field(default_factory=_default_family, json_schema_extra=_tell_families)
    schedule: ScheduleName = "per_layer"
    share: Shares = Shares()
    choices: Choices = Choices()
    calibration: Calibration = Calibration()
    search_images: int | None = Field(default=None, ge=1)
    rungs: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """Shares of the search images that a trial must prove itself on before it gets all (successive halving). For a
    single objective: with several, Optuna gives up no trial early."""
    objectives: tuple[MetricName, ...] = Field(min_length=1)
    constraints: tuple[Constraint, ...] = ()
    reference: dict[MetricName, float] = Field(default_factory=dict)
    proxy: Proxy | None = None
    sampler: SamplerName = "gp_screened"
    trials: int = Field(default=60, ge=1)
    warm_start: int = Field(default=10, ge=0)
    seed: int = 0
    baselines: tuple[OperatingPoint, ...] = ()
    remeasure: Remeasure | None = None
    batch_size: int = Field(default=64, ge=1)
    bandwidth_hz: float = Field(default=1e6, gt=0, allow_inf_nan=False)
    _source: TextSource = PrivateAttr(default_factory=lambda: TextSource("space", {}, {}))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[str]:
        if len(set(self.objectives)) != len(self.objectives):
            yield "objectives: a metric occurs twice"
        for metric in self.reference:
            if metric not in self.objectives:
                yield f"reference.{metric}: {metric!r} is no objective; {suggest(metric, list(self.objectives))}"
        if self.proxy is None and "leakage" in self.measured:
            yield "objectives: leakage needs a `proxy`: {attack: NAME, floors: [...]}"
        if self.rungs and (len(self.objectives) > 1 or self.measured & {"leakage", "latency_ms"}):
            yield "rungs are for one objective, without leakage and latency_ms"
        if list(self.rungs) != sorted(set(self.rungs)):
            yield "rungs must rise"
        yield from twice("constraints", [constraint.name for constraint in self.constraints])
        yield from twice("baselines", [point.name for point in self.baselines])

    @property
    def source(self) -> TextSource:
        """Where the space was read; no part of what it says."""
        return self._source

    @property
    def searched(self) -> Searched:
        """How the search sets the reduction; raises PluginError where none can be set."""
        found = searched(self.family)
        if found is None:  # a default that no space states
            raise PluginError(
                f"reduction {self.family!r} cannot be searched",
                where="family",
                hint="give it `searched` (leakgauge.harness.contracts.reduction), or state another",
            )
        return found

    @property
    def measured(self) -> set[str]:
        """The metrics that objectives and constraints read."""
        return {*self.objectives, *(constraint.metric for constraint in self.constraints)}

    @property
    def channels(self) -> tuple[PluginConfig, ...]:
        """The channels that are searched: the choices, or else the one."""
        return self.choices.channel or (self.channel,)


def parse_space(data: dict[str, Any], *, where: str = "space", source: TextSource | None = None) -> Space:
    """Validates space data.

    Args:
        data: The keys.
        where: What errors call it.
        source: Where it was read, instead.

    Raises:
        ConfigError: It does not fit the schema; several problems are told at once.
    """
    source = TextSource(where, data, {}) if source is None else source
    space = validated(Space, data, source)
    space._source = source
    return space


def load_space(reference: str, overrides: list[str] | None = None) -> Space:
    """Reads a space from a path or by the name of a shipped one.

    Raises:
        ConfigError: It is not there, is not YAML, or does not fit the schema; several problems are told at once.
    """
    source = read_source(reference, "space", overrides)
    return parse_space(dict(source.data), source=source)


SAMPLERS: tuple[str, ...] = get_args(SamplerName)
