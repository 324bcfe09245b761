"""The command ``list``, which imports no plug-in: it takes seconds to import them all."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from leakgauge.harness.cli.json_output import print_json
from leakgauge.harness.cli.reference.summaries import summary_of
from leakgauge.harness.errors import ConfigError, suggest
from leakgauge.harness.search.known_samplers import SAMPLERS
from leakgauge.harness.suite.configuration import description_of, shipped
from leakgauge.harness.suite.registry import GROUPS, load, plugins
from leakgauge.harness.system import console
from leakgauge.harness.system.plain_text import plain, shortened

TEXTS = ("suites", "spaces")
"""Groups of YAML texts; all others are of Python objects."""
LISTED = (*GROUPS, "exporters", "spaces", "samplers", "commands")
ASKED = ("models",)
"""What is listed only when it is asked for: it takes the import of a library of models."""
_out = console.output()


def list_(
    group: Annotated[str | None, typer.Argument(help=f"One of {', '.join((*LISTED, *ASKED))}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: group, name, what it is.")] = False,
) -> None:
    """Lists installed plug-ins, shipped suites and spaces, samplers and commands; victims with `list models`."""
    if group is not None and group not in (*LISTED, *ASKED):
        raise ConfigError(f"unknown group {group!r}", where="list", hint=suggest(group, [*LISTED, *ASKED]))
    found = {name: _rows(name) for name in ([group] if group else LISTED)}
    if as_json:
        print_json({name: dict(rows) for name, rows in found.items()})
        return
    for name, rows in found.items():
        table = Table(title=name, title_justify="left", show_header=False, box=None)
        for row in rows:
            table.add_row(*(escape(text) for text in row))
        _out.print(table)


def _rows(group: str) -> list[tuple[str, str]]:
    if group in TEXTS:
        found = {name: description_of(text) for name, text in shipped(group).items()}
    elif group == "samplers":
        found = dict(SAMPLERS)
    elif group == "models":
        found = {name: how for library in plugins(group) for name, how in load("models", library)().items()}
    else:
        found = {name: summary_of(group, point) for name, point in plugins(group).items()}
    return [(plain(name, keep=""), plain(shortened(summary, 200), keep="")) for name, summary in sorted(found.items())]
