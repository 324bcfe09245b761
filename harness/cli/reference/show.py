"""The command ``show``: all that is known of one plug-in, from its class and its annotations."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from leakgauge.harness.cli.json_output import print_json
from leakgauge.harness.cli.reference.docstrings import body_of, meanings_of
from leakgauge.harness.cli.reference.list import TEXTS
from leakgauge.harness.errors import ConfigError, suggest
from leakgauge.harness.run.suite_options import SUPPLIED
from leakgauge.harness.suite.annotations import describe
from leakgauge.harness.suite.configuration import shipped
from leakgauge.harness.suite.options import signature_of
from leakgauge.harness.suite.registry import GROUPS, load, plugins
from leakgauge.harness.system import console
from leakgauge.harness.system.plain_text import plain, shown

_out = console.output()


def show(
    group: Annotated[str, typer.Argument(help="What it is: attack, defense, reduction, codec, suite, ...")],
    name: Annotated[str, typer.Argument(help="Its name, as `list` prints it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Shows a plug-in: what it does, what it needs to know, and its options; of a suite, its YAML."""
    known = {**{one.removesuffix("s"): one for one in (*GROUPS, "spaces")}, **{one: one for one in (*GROUPS, "spaces")}}
    if group not in known:
        raise ConfigError(f"unknown group {group!r}", where="show", hint=suggest(group, list(known)))
    if known[group] in TEXTS:
        texts = shipped(known[group])
        if name not in texts:
            raise ConfigError(f"unknown {group} {name!r}", where="show", hint=suggest(name, list(texts)))
        typer.echo(texts[name].rstrip("\n"))
        return
    facts = facts_of(known[group], name)
    if as_json:
        print_json(facts)
        return
    _print(facts)


def facts_of(group: str, name: str) -> dict[str, Any]:
    """Returns what is known of a plug-in, as ``show --json`` prints it.

    Raises:
        ConfigError: There is no such plug-in.
        PluginError: It cannot be imported.
    """
    plugin = load(group, name, where="show")
    meanings = meanings_of(plugin)
    facts: dict[str, Any] = {
        "group": group,
        "name": name,
        "from": plugins(group)[name].value,
        "does": plain(body_of(plugin)),
    }
    for attribute in ("knowledge", "training", "layout", "least_steps", "floor", "unit", "leaks_when"):
        learns = attribute != "least_steps" or getattr(plugin, "training", "") == "learned"  # else it takes no steps
        if hasattr(plugin, attribute) and learns:
            value = getattr(plugin, attribute)
            facts[attribute] = value if isinstance(value, bool | int | float | str | None) else str(value)
    facts["options"] = [
        {
            "name": option.name,
            "is": describe(option.annotation) if option.checked else "anything",
            "default": "must be given" if option.required else shown(option.default),
            "means": plain(meanings.get(option.name, "")),
        }
        for option in signature_of(plugin).options.values()
        if group != "defenses" or option.name not in SUPPLIED
    ]
    return facts


def _print(facts: dict[str, Any]) -> None:
    rest = {key: value for key, value in facts.items() if key not in {"does", "options", "group", "name"}}
    _out.print(f"{facts['group']} / {facts['name']}\n\n{facts['does']}\n", markup=False, highlight=False)
    for key, value in rest.items():
        _out.print(f"{key.replace('_', ' ')}: {value}", markup=False, highlight=False)
    if not facts["options"]:
        _out.print("no options")
        return
    table = Table(header_style="bold")
    for heading in ("option", "is", "default", "means"):
        table.add_column(heading)
    for option in facts["options"]:
        table.add_row(*(option[key] for key in ("name", "is", "default", "means")))
    _out.print(table)
