"""The command ``new``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from leakgauge.harness.cli.reference.json_schema import schema_of
from leakgauge.harness.cli.reference.new_suite import SCHEMA_FILE, new_suite
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.registry import default_of
from leakgauge.harness.system import console
from leakgauge.harness.system.files.atomic_file import write_atomic
from leakgauge.harness.system.files.output_paths import check_file_free

TASK = default_of("tasks")
_out = console.output()


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The suite to write, my-suite.yaml say.")],
    task: Annotated[str, typer.Option(help="A task, as `list tasks` prints it.")] = TASK,
    options: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="An option of the task.")
    ] = None,
) -> None:
    """Writes a commented suite to start from, and beside it the schema by which editors complete it."""
    if file.suffix not in {".yaml", ".yml"}:
        raise ConfigError("a suite's file ends in .yaml", where=str(file), hint=f"write {file.stem or 'suite'}.yaml")
    if file.exists() or file.is_symlink():
        raise ConfigError("the file is there, and is not overwritten", where=str(file), hint="choose another name")
    check_file_free(file)
    made = new_suite(file.stem, task, options or [], str(file))
    write_atomic(file, made.text.encode())
    schema = file.parent / SCHEMA_FILE
    if not schema.exists():
        write_atomic(schema, json.dumps(schema_of("suite"), indent=2).encode())
    first = f"fill in task.{', task.'.join(made.missing)}, then " if made.missing else ""
    _out.print(f"wrote {file}; next: {first}leakgauge validate {file}", markup=False, highlight=False, soft_wrap=True)
