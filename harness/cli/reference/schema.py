"""The command ``schema``: what editors complete and check suites by."""

from __future__ import annotations

import json
from typing import Annotated, Literal, cast

import typer

from leakgauge.harness.cli.reference.json_schema import schema_of
from leakgauge.harness.errors import ConfigError, suggest

KINDS = ("suite", "space")


def schema(kind: Annotated[str, typer.Argument(help="suite or space.")] = "suite") -> None:
    """Prints the JSON Schema of suites or spaces, with the installed plug-ins and their options, for editors."""
    if kind not in KINDS:
        raise ConfigError(f"no schema of {kind!r}", where="schema", hint=suggest(kind, list(KINDS)))
    typer.echo(json.dumps(schema_of(cast(Literal["suite", "space"], kind)), indent=2))
