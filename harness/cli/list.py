"""The command ``list``, which imports no plug-in: it takes seconds to import them all."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from harness import console
from harness.cli.summaries import summary_of
from harness.configuration import description_of, shipped
from harness.errors import ConfigError
from harness.plain_text import plain, shortened
from harness.registry import GROUPS, plugins, suggest

_out = console.output()


def list_(group: Annotated[str | None, typer.Argument(help=f"One of {', '.join(GROUPS)}.")] = None) -> None:
    """Lists installed plug-ins and shipped suites."""
    if group is not None and group not in GROUPS:
        raise ConfigError(f"unknown group {group!r}", where="list", mend=suggest(group, list(GROUPS)))
    for name in [group] if group else GROUPS:
        table = Table(title=name, title_justify="left", show_header=False, box=None)
        for row in _suite_rows() if name == "suites" else _plugin_rows(name):
            table.add_row(*row)
        _out.print(table)


def _suite_rows() -> list[tuple[str, str]]:
    return [
        (escape(name), escape(shortened(description_of(text), 200))) for name, text in sorted(shipped("suites").items())
    ]


def _plugin_rows(group: str) -> list[tuple[str, str]]:
    return [
        (escape(plain(name, keep="")), escape(plain(shortened(summary_of(group, point), 200), keep="")))
        for name, point in sorted(plugins(group).items())
    ]
