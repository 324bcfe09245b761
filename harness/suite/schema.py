"""The suite schema: what to attack, behind which operating points and channels, under which threat models."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator
from pydantic.config import JsonDict
from pydantic_core import to_jsonable_python

from leakgauge.harness.errors import LeakgaugeError, suggest
from leakgauge.harness.suite.configuration import read_source, shipped
from leakgauge.harness.suite.options import beside
from leakgauge.harness.suite.registry import default_of, labelled, load, written_out
from leakgauge.harness.suite.schema_problems import refuse, twice, validated
from leakgauge.harness.suite.text_source import TextSource

Name = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PluginConfig(BaseModel):
    """A plug-in by name, its options beside it: ``{name: awgn, snr_db: 10}``, or just ``awgn``."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)
    name: str
    """Name of the plug-in, as `leakgauge list` prints it; its options stand beside it."""

    @property
    def options(self) -> dict[str, object]:
        """The keyword options that rebuild the plug-in."""
        return dict(self.model_extra or {})

    def __str__(self) -> str:
        """Writes the plug-in with its options, ``awgn (snr_db 0)``."""
        stated = ", ".join(f"{key} {value}" for key, value in self.options.items())
        return f"{self.name} ({stated})" if stated else self.name


Plugin = Annotated[PluginConfig, BeforeValidator(written_out)]


def default_plugin(group: str) -> PluginConfig:
    """Returns the plug-in of a group that is meant where none is stated, as what is installed says.

    Raises:
        PluginError: It does not say.
    """
    return PluginConfig(name=default_of(group))


def telling(default: Callable[[], object]) -> Callable[[JsonDict], None]:
    """Returns what tells a JSON Schema of a default that is known only once it is asked for."""
    return lambda schema: schema.update(default=to_jsonable_python(default()))


_pipeline = partial(default_plugin, "defenses")


class NamedPlugin(_Strict):
    """A plug-in under the label that tables show; ``plugin`` defaults to the label."""

    label: Name
    """What tables call it; the name of the plug-in if nothing is said."""
    plugin: PluginConfig
    """The plug-in; its name and options may also stand beside the label."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        return labelled(value)


def default_channel() -> NamedPlugin:
    """Returns the channel that is meant where none is stated; raises what ``default_plugin`` does."""
    channel = default_plugin("channels")
    return NamedPlugin(label=channel.name, plugin=channel)


def _channels() -> tuple[NamedPlugin, ...]:
    return (default_channel(),)


class OperatingPoint(BaseModel):
    """One defense configuration: a name, and options that override the suite's ``defense``."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)
    name: Name
    """What tables call it; options of the defense stand beside it."""

    @property
    def options(self) -> dict[str, object]:
        """Defense options that this point sets."""
        return dict(self.model_extra or {})


class Auxiliary(_Strict):
    """The attacker's public images: their domain, and how many (None: all there are)."""

    domain: Literal["in-domain", "shifted"] = "in-domain"
    """Images of the task, or of another domain that the task offers."""
    n: int | None = Field(default=None, ge=1, strict=True)
    """How many; null: all there are."""


class Knows(_Strict):
    """What the observer sees beside the token values."""

    merge_map: bool = Field(default=False, strict=True)
    """Which patches became which token."""
    sizes: bool = Field(default=True, strict=True)
    """How many patches a token stands for."""
    order: bool = Field(default=True, strict=True)
    """The order in which the edge sent the tokens."""
    channel_state: bool = Field(default=True, strict=True)
    """The noise, and the gain under fading."""


class ThreatModel(_Strict):
    """Who looks, and what is granted. Declared, checked before anything runs, printed in every report.

    The server sees what its own channel delivers. An eavesdropper sees the same transmission through ``channel``, a
    channel of its own, and neither the server's answers nor the victim unless ``victim`` grants it. An attacker that is
    not ``adaptive`` knows nothing of the defense: its own images pass the pipeline without reduction and perturbation.
    """

    name: Name = "server"
    """What tables call it."""
    observer: Literal["server", "eavesdropper"] = "server"
    """Who looks."""
    channel: Plugin | None = None
    """The channel through which an eavesdropper hears; of the server null."""
    knows: Knows = Knows()
    """What it sees beside the token values."""
    victim: Literal["none", "query", "white-box"] = "query"
    """Whether it may ask the victim, or holds its weights; of an eavesdropper none, unless stated."""
    auxiliary: Auxiliary = Auxiliary()
    """Its own, public images."""
    adaptive: bool = Field(default=True, strict=True)
    """Whether it trains on the very operating point that it attacks."""

    @model_validator(mode="before")
    @classmethod
    def _granted_by_default(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("observer") == "eavesdropper":
            return {"victim": "none", **value}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ThreatModel:
        if self.observer == "eavesdropper" and self.channel is None:
            raise ValueError("an eavesdropper needs a `channel` of its own, {name: awgn, snr_db: 0} say")
        if self.observer == "server" and self.channel is not None:
            raise ValueError("the server hears the suite's channels; `channel` is for `observer: eavesdropper`")
        return self


class CellBlock(_Strict):
    """A block of cells: the product of the named axes; ``all`` takes every one that the suite declares."""

    operating_points: Literal["all"] | tuple[str, ...] = "all"
    """Names of operating points that the suite declares."""
    channels: Literal["all"] | tuple[str, ...] = "all"
    """Names of channels that the suite declares."""
    attacks: Literal["all"] | tuple[str, ...] = "all"
    """Names of attacks that the suite declares."""
    threat_models: Literal["all"] | tuple[str, ...] = "all"
    """Names of threat models that the suite declares."""


class Suite(_Strict):
    """A whole suite, as read from YAML."""

    name: Name
    """Name of the suite."""
    description: str = ""
    """A line that `leakgauge list suites` prints."""
    task: Plugin
    """Data, victim and quality."""
    defense: Plugin = Field(default_factory=_pipeline, json_schema_extra=telling(_pipeline))
    """The pipeline, with options that all operating points share."""
    operating_points: tuple[OperatingPoint, ...] = Field(min_length=1)
    """Configurations of the defense; the first is the undefended one, unless `baseline` says otherwise."""
    baseline: str | None = None
    """The operating point that others are compared with; null: the first."""
    channels: tuple[NamedPlugin, ...] = Field(default_factory=_channels, json_schema_extra=telling(_channels))
    """What carries the payload from the edge to the server."""
    threat_models: tuple[ThreatModel, ...] = (ThreatModel(),)
    """Who looks, and what is granted."""
    attacks: tuple[NamedPlugin, ...] = Field(min_length=1)
    """Attacks and probes, at least one floor among them for leakage to be scored."""
    metrics: tuple[Plugin, ...] = tuple(PluginConfig(name=n) for n in ("psnr_db", "ssim", "lpips"))
    """Scores of reconstructions."""
    judge: Plugin = PluginConfig(name="alexnet")
    """What decides whether a reconstruction shows its original."""
    cells: tuple[CellBlock, ...] = (CellBlock(),)
    """Blocks of cells to measure; by default all."""
    seeds: tuple[Annotated[int, Field(strict=True)], ...] = Field(default=(0,), min_length=1)
    """Seeds; everything is measured once under each."""
    evaluation_images: int | None = Field(default=None, ge=1, strict=True)
    """How many images of the evaluation split, evenly spaced; null: all."""
    batch_size: int = Field(default=64, ge=1, strict=True)
    """Images that pass the victim at a time; no result depends on it."""
    bandwidth_hz: float = Field(default=1e6, gt=0, allow_inf_nan=False, strict=True)
    """Complex symbols a second, from which air time is reckoned."""
    _source: TextSource = PrivateAttr(default_factory=lambda: TextSource("suite", {}, {}))

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        axes = {
            "operating_points": [p.name for p in self.operating_points],
            "channels": [c.label for c in self.channels],
            "attacks": [a.label for a in self.attacks],
            "threat_models": [t.name for t in self.threat_models],
        }
        problems = [text for axis, names in axes.items() for text in twice(axis, names)]
        for number, block in enumerate(self.cells):
            for axis, names in axes.items():
                chosen = getattr(block, axis)
                unknown = [] if chosen == "all" else [name for name in chosen if name not in names]
                problems += [f"cells.{number}.{axis}: unknown {name!r}; {suggest(name, names)}" for name in unknown]
        if self.baseline is not None and self.baseline not in axes["operating_points"]:
            known = axes["operating_points"]
            problems.append(f"baseline: unknown {self.baseline!r}; {suggest(self.baseline, known)}")
        refuse(problems)
        return self

    @property
    def source(self) -> TextSource:
        """Where the suite was read; no part of what it says."""
        return self._source

    @property
    def baseline_point(self) -> str:
        """The undefended operating point that others are compared with: ``baseline``, or else the first."""
        return self.baseline or self.operating_points[0].name


def shipped_suites() -> dict[str, str]:
    """Returns the YAML texts of all suites that installed packages ship, by name."""
    return shipped("suites")


def load_suite(reference: str, overrides: list[str] | None = None) -> Suite:
    """Reads a suite from a path or by the name of a shipped one.

    Raises:
        ConfigError: It is not there, is not YAML, or does not fit the schema; several problems are told at once.
    """
    source = read_source(reference, "suite", overrides)
    suite = parse_suite(source.data, source=source)
    # A shipped suite has no place of its own.
    return _files_named_from_here(suite, Path(reference).parent) if os.path.isfile(reference) else suite  # noqa: PTH113


def _files_named_from_here(suite: Suite, folder: Path) -> Suite:
    """Returns the suite with its task's files named from the working directory, where they lie beside its own file."""
    try:
        options = beside(folder, load("tasks", suite.task.name), suite.task.options)
    except LeakgaugeError:  # told when plug-ins are checked
        return suite
    return suite.model_copy(update={"task": PluginConfig(name=suite.task.name, **options)})


def parse_suite(data: Mapping[str, object], *, where: str = "suite", source: TextSource | None = None) -> Suite:
    """Validates suite data.

    Args:
        data: The keys.
        where: What errors call it.
        source: Where it was read, instead.

    Raises:
        ConfigError: It does not fit the schema; several problems are told at once.
    """
    source = TextSource(where, data, {}) if source is None else source
    suite = validated(Suite, data, source)
    suite._source = source
    return suite
