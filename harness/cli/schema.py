"""The command ``schema``."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from leakgauge.harness.cli.configuration_schema import schema_of
from leakgauge.harness.search.space import Space
from leakgauge.harness.suite import Suite


def schema(
    of: Annotated[Literal["suite", "space"], typer.Argument(help="What to describe: suite or space.")] = "suite",
) -> None:
    """Prints the JSON Schema of suites or search spaces, with the plug-ins installed here, for editors and CI."""
    typer.echo(json.dumps(schema_of(Suite if of == "suite" else Space), indent=2))
