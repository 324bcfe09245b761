"""Turns a suite into cells: content-hashed, checked against their threat models, in a fixed order."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch

from leakgauge.harness.contracts.declarations import Knowledge, check_knowledge_type
from leakgauge.harness.contracts.defense import Defense
from leakgauge.harness.contracts.probing import Attacker, kind_of
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import AccessDeniedError, PluginError
from leakgauge.harness.suite.registry import create, load
from leakgauge.harness.suite.schema import CellBlock, NamedPlugin, OperatingPoint, PluginConfig, Suite, ThreatModel

_VICTIM_ACCESS = ("none", "query", "white-box")


def content_hash(data: object) -> str:
    """Returns 16 hex digits of the SHA-256 of ``data`` in canonical JSON."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Exposure:
    """What several attacks face together: one operating point, channel, threat model and seed.

    Attributes hold validated configuration; ``key`` addresses its random streams and cached observations.
    """

    point: OperatingPoint
    defense: PluginConfig
    channel: NamedPlugin
    threat_model: ThreatModel
    seed: int
    data_key: str

    @property
    def key(self) -> str:
        """Content hash of all that decides the observations; names for display do not enter."""
        return content_hash(
            {
                "defense": self.defense.model_dump(),
                "channel": self.channel.plugin.model_dump(),
                "threat_model": self.threat_model.model_dump(exclude={"name"}),
                "seed": self.seed,
                "data": self.data_key,
            }
        )


@dataclass(frozen=True)
class Cell:
    """One attack against one exposure: the unit of result."""

    exposure: Exposure
    attack: NamedPlugin

    @property
    def key(self) -> str:
        """Content hash of the cell. Labels enter too, because a row carries them."""
        return content_hash(
            {
                "exposure": self.exposure.key,
                "labels": [self.exposure.point.name, self.exposure.channel.label, self.exposure.threat_model.name],
                "attack": self.attack.model_dump(),
            }
        )


def defense_config(suite: Suite, point: OperatingPoint, channel: NamedPlugin) -> PluginConfig:
    """Joins the suite's defense options, the point's overrides and the channel."""
    options = {**suite.defense.options, **point.options, "channel": channel.plugin.model_dump()}
    name = str(options.pop("defense", suite.defense.name))
    return PluginConfig(name=name, **options)


def _chosen(block_axis: Literal["all"] | tuple[str, ...], names: list[str]) -> list[str]:
    return names if block_axis == "all" else [n for n in names if n in block_axis]


def plan(suite: Suite, data_key: str) -> list[Cell]:
    """Returns the suite's cells in a fixed order, each once.

    Args:
        suite: The validated suite.
        data_key: Content hash of the task's data, victim weights and version.
    """
    points = {p.name: p for p in suite.operating_points}
    channels = {c.label: c for c in suite.channels}
    models = {t.name: t for t in suite.threat_models}
    attacks = {a.label: a for a in suite.attacks}
    cells: dict[str, Cell] = {}

    def axes(block: CellBlock) -> list[list[str]]:
        return [
            _chosen(block.channels, list(channels)),
            _chosen(block.threat_models, list(models)),
            _chosen(block.operating_points, list(points)),
        ]

    for seed, block in product(suite.seeds, suite.cells):
        for channel, model, point in product(*axes(block)):
            exposure = Exposure(
                points[point],
                defense_config(suite, points[point], channels[channel]),
                channels[channel],
                models[model],
                seed,
                data_key,
            )
            for attack in _chosen(block.attacks, list(attacks)):
                cell = Cell(exposure, attacks[attack])
                cells.setdefault(cell.key, cell)
    return list(cells.values())


def by_exposure(cells: list[Cell]) -> list[list[Cell]]:
    """Groups cells that share an exposure, keeping the order."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        labels = (cell.exposure.point.name, cell.exposure.channel.label)
        groups.setdefault((cell.exposure.key, str(labels)), []).append(cell)
    return list(groups.values())


def missing_grant(needs: Knowledge, model: ThreatModel) -> str | None:
    """Names the first thing that an attack needs and its threat model withholds, or returns None."""
    for field in ("merge_map", "sizes", "order", "channel_state"):
        if getattr(needs, field) and not getattr(model.knows, field):
            return field.replace("_", " ")
    if _VICTIM_ACCESS.index(needs.victim) > _VICTIM_ACCESS.index(model.victim):
        return f"{needs.victim} access to the victim"
    return None


def needed_knowledge(config: NamedPlugin) -> Knowledge:
    """Returns what the attack that a suite names needs to know, without building it.

    An attack whose needs depend on its options, such as one around another attack, says so in a class method
    ``knowledge_for(options)``.
    """
    attack = load("attacks", config.plugin.name, where=f"attacks: {config.label}")
    asked = getattr(attack, "knowledge_for", None)
    needs = attack.knowledge if asked is None else asked(config.plugin.options)
    return check_knowledge_type(needs, f"attacks: {config.label} (attack {config.plugin.name!r})")


def missing_knowledge(config: NamedPlugin, model: ThreatModel) -> str | None:
    """Returns the first thing that the attack a suite names needs and its threat model withholds, or None."""
    return missing_grant(needed_knowledge(config), model)


def check_knowledge(cells: list[Cell]) -> None:
    """Refuses attacks that need more than their threat model grants, before anything runs.

    Raises:
        AccessDeniedError: Names the attack, the threat model and what is missing.
    """
    for cell in cells:
        missing = missing_knowledge(cell.attack, cell.exposure.threat_model)
        if missing:
            raise AccessDeniedError(
                f"attack {cell.attack.label!r} needs the {missing}, which threat model "
                f"{cell.exposure.threat_model.name!r} does not grant",
                where="cells",
                hint="grant it in the threat model, or leave the attack out of this block of cells",
            )


def build_defense(config: PluginConfig, point: str, victim: Victim, device: torch.device) -> Defense:
    """Builds the defense of the operating point ``point``; ``prepare`` it before use."""
    options = {**config.options, "victim": victim, "device": device}
    return create("defenses", config.name, options, where=f"operating point {point!r}")


def build_attack(config: NamedPlugin) -> Attacker:
    """Builds the attack or probe that a suite names.

    Raises:
        ConfigError: The name or an option is unknown.
        PluginError: It implements none of the contracts.
    """
    where = f"attacks: {config.label}"
    attacker = create("attacks", config.plugin.name, config.plugin.options, where=where)
    if kind_of(attacker) is None:
        raise PluginError(
            f"{type(attacker).__name__} is no attack",
            where=where,
            hint="derive it from Attack, AttributeProbe or IdentityProbe",
        )
    return attacker
