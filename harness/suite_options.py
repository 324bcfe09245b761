"""Checks the options of every plug-in that a suite or search space names, before anything is loaded or built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import partial
from typing import Any

from leakgauge.harness.errors import ConfigError, LeakgaugeError
from leakgauge.harness.options import signature_of
from leakgauge.harness.plain_text import quoted
from leakgauge.harness.planning import defense_config
from leakgauge.harness.registry import check, create, load
from leakgauge.harness.scoring.metrics import metrics_of
from leakgauge.harness.search.space import Space
from leakgauge.harness.suite import NamedPlugin, OperatingPoint, PluginConfig, Suite, ThreatModel
from leakgauge.harness.text_source import all_told

SUPPLIED = ("victim", "device")
"""Options of a defense that the harness adds."""
_SOUND = NamedPlugin(label="ideal", plugin=PluginConfig(name="ideal"))
"""The channel that defenses are checked with: what is wrong with a channel is told once, not at every point."""


def check_suite(suite: Suite) -> None:
    """Checks every plug-in that a suite names, used in a cell or not.

    Raises:
        ConfigError: A plug-in is unknown, or an option is unknown, missing or not what its annotation allows; several
            problems are told at once.
        PluginError: A plug-in cannot be imported.
    """
    checks: list[Callable[[], object]] = [
        lambda: check("tasks", suite.task.name, suite.task.options, where="task"),
        lambda: metrics_of(suite),
        *(partial(_check_attacks, [named], "attacks") for named in suite.attacks),
        *(partial(_check_threat_models, [model]) for model in suite.threat_models),
        *(partial(_check_channel, named) for named in suite.channels),
        *(partial(_check_operating_point, suite, point) for point in suite.operating_points),
    ]
    _check_all(checks, suite.name)


def _check_all(checks: Iterable[Callable[[], object]], where: str) -> None:
    """Makes every check; raises what they found, all of it at once."""
    problems = dict[str, LeakgaugeError]()
    for one in checks:
        try:
            one()
        except LeakgaugeError as error:
            problems.setdefault(str(error), error)
    if problems:
        raise all_told(list(problems.values()), where)


def _check_label(named: NamedPlugin, group: str, where: str) -> None:
    """Refuses a misspelt ``label``, which would be told as an option of the plug-in."""
    signature = signature_of(load(group, named.plugin.name, where=where))
    for key in named.plugin.options:
        unknown = key not in signature.options and not signature.open_ended
        if unknown and get_close_matches(key[:80], ["label", *signature.options], n=1) == ["label"]:
            raise ConfigError(f"unknown key {quoted(key)}", where=where, mend="did you mean 'label'?")


def _check_channel(named: NamedPlugin) -> None:
    _check_label(named, "channels", f"channels: {named.label}")
    check("channels", named.plugin.name, named.plugin.options, where=f"channels: {named.label}")


def _check_operating_point(suite: Suite, point: OperatingPoint) -> None:
    _check_point(suite.defense, point)
    config = defense_config(suite, point, _SOUND)
    check("defenses", config.name, config.options, where=f"operating point {point.name!r}", given=SUPPLIED)


def check_space(space: Space) -> None:
    """Checks every plug-in that a search space names.

    Raises:
        ConfigError: A plug-in is unknown, or an option is unknown, missing or not what its annotation allows; several
            problems are told at once.
        PluginError: A plug-in cannot be imported.
    """
    _check_all(_checks_of_space(space), space.name)


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
            yield partial(_check_attacks, [attack], where)
    for where, model in models:
        yield partial(_check_threat_models, [model], where)
    yield partial(_check_defense, space, "defense", {})
    for cut in space.choices.cut:
        yield partial(_check_defense, space, f"choices.cut: {cut}", {"cut": cut})
    for point in space.baselines:
        yield partial(_check_point, space.defense, point)
        yield partial(_check_defense, space, f"baselines: {point.name}", point.options)


def _check_defense(space: Space, where: str, options: dict[str, Any]) -> None:
    stated = {**space.defense.options, "channel": _SOUND.plugin.model_dump(), **options}
    check("defenses", space.defense.name, stated, where=where, given=SUPPLIED)


def _check_attacks(attacks: Iterable[NamedPlugin], where: str) -> None:
    for named in attacks:
        _check_label(named, "attacks", f"{where}: {named.label}")
        # Built too, for what options must be together: it takes no time.
        create("attacks", named.plugin.name, named.plugin.options, where=f"{where}: {named.label}")


def _check_threat_models(models: Iterable[ThreatModel], where: str = "") -> None:
    for model in models:
        if model.channel is not None:
            place = f"{where}threat model {model.name!r}"
            check("channels", model.channel.name, model.channel.options, where=place)


def _check_point(defense: PluginConfig, point: OperatingPoint) -> None:
    """Refuses a channel among the options of a defense, which the suite's own would silently replace."""
    for place, options in (("defense", defense.options), (f"operating point {point.name!r}", point.options)):
        if "channel" in options:
            raise ConfigError(
                f"unknown option 'channel' of defense {defense.name!r}",
                where=place,
                mend="name it under the suite's `channels`",
            )
