"""Checks the options of every plug-in that a search space names, before anything is loaded or built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from leakgauge.harness.run.suite_options import (
    SUPPLIED,
    check_all,
    check_attacks,
    check_point,
    check_threat_models,
)
from leakgauge.harness.search.space import Space
from leakgauge.harness.suite.registry import check
from leakgauge.harness.suite.schema import NamedPlugin, ThreatModel, default_plugin


def check_space(space: Space) -> None:
    """Checks every plug-in that a search space names.

    Raises:
        ConfigError: A plug-in is unknown, or an option is unknown, missing or not what its annotation allows; several
            problems are told at once.
        PluginError: A plug-in cannot be imported.
    """
    check_all(_checks_of_space(space), space.name)


def _checks_of_space(space: Space) -> Iterator[Callable[[], object]]:
    yield partial(check, "tasks", space.task.name, space.task.options, where="task")
    yield partial(check, "channels", space.channel.name, space.channel.options, where="channel")
    for group, configs in (("channels", space.choices.channel), ("codecs", space.choices.codec)):
        for config in configs:
            yield partial(check, group, config.name, config.options, where=f"choices.{group[:-1]}: {config.name}")
    attacked: list[tuple[str, tuple[NamedPlugin, ...]]] = []
    models: list[tuple[str, ThreatModel]] = []
    if space.proxy is not None:
        attacked += [("proxy.attack", (space.proxy.attack,)), ("proxy.floors", space.proxy.floors)]
        models.append(("proxy: ", space.proxy.threat_model))
    if space.remeasure is not None:
        attacked.append(("remeasure.attacks", space.remeasure.attacks))
        models += [("remeasure: ", model) for model in space.remeasure.threat_models]
    for where, attacks in attacked:
        for attack in attacks:
            yield partial(check_attacks, [attack], where)
    for where, model in models:
        yield partial(check_threat_models, [model], where)
    yield partial(_check_defense, space, "defense", {})
    for cut in space.choices.cut:
        yield partial(_check_defense, space, f"choices.cut: {cut}", {"cut": cut})
    for point in space.baselines:
        yield partial(check_point, space.defense, point)
        yield partial(_check_defense, space, f"baselines: {point.name}", point.options)


def _check_defense(space: Space, where: str, options: dict[str, Any]) -> None:
    stated = {**space.defense.options, "channel": default_plugin("channels").model_dump(), **options}
    check("defenses", space.defense.name, stated, where=where, given=SUPPLIED)
