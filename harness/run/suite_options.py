"""Checks the options of every plug-in that a suite names, before anything is loaded or built."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import partial

from leakgauge.harness.errors import ConfigError, LeakgaugeError
from leakgauge.harness.scoring.metrics import metrics_of
from leakgauge.harness.suite.options import signature_of
from leakgauge.harness.suite.planning import defense_config
from leakgauge.harness.suite.registry import check, create, load
from leakgauge.harness.suite.schema import (
    NamedPlugin,
    OperatingPoint,
    PluginConfig,
    Suite,
    ThreatModel,
    default_channel,
)
from leakgauge.harness.suite.text_source import all_told
from leakgauge.harness.system.plain_text import quoted

SUPPLIED = ("victim", "device")
"""Options of a defense that the harness adds."""


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
        *(partial(check_attacks, [named], "attacks") for named in suite.attacks),
        *(partial(check_threat_models, [model]) for model in suite.threat_models),
        *(partial(_check_channel, named) for named in suite.channels),
        *(partial(_check_operating_point, suite, point) for point in suite.operating_points),
    ]
    check_all(checks, suite.name)


def check_all(checks: Iterable[Callable[[], object]], where: str) -> None:
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
            raise ConfigError(f"unknown key {quoted(key)}", where=where, hint="did you mean 'label'?")


def _check_channel(named: NamedPlugin) -> None:
    _check_label(named, "channels", f"channels: {named.label}")
    check("channels", named.plugin.name, named.plugin.options, where=f"channels: {named.label}")


def _check_operating_point(suite: Suite, point: OperatingPoint) -> None:
    check_point(suite.defense, point)
    # A sound channel: what is wrong with one is told once, not at every point.
    config = defense_config(suite, point, default_channel())
    check("defenses", config.name, config.options, where=f"operating point {point.name!r}", given=SUPPLIED)


def check_attacks(attacks: Iterable[NamedPlugin], where: str) -> None:
    """Checks attacks that stand at one place."""
    for named in attacks:
        _check_label(named, "attacks", f"{where}: {named.label}")
        # Built too, for what options must be together: it takes no time.
        create("attacks", named.plugin.name, named.plugin.options, where=f"{where}: {named.label}")


def check_threat_models(models: Iterable[ThreatModel], where: str = "") -> None:
    """Checks the channels of threat models; ``where`` goes before their names."""
    for model in models:
        if model.channel is not None:
            place = f"{where}threat model {model.name!r}"
            check("channels", model.channel.name, model.channel.options, where=place)


def check_point(defense: PluginConfig, point: OperatingPoint) -> None:
    """Refuses a channel among the options of a defense, which the suite's own would silently replace."""
    for place, options in (("defense", defense.options), (f"operating point {point.name!r}", point.options)):
        if "channel" in options:
            raise ConfigError(
                f"unknown option 'channel' of defense {defense.name!r}",
                where=place,
                hint="name it under the suite's `channels`",
            )
