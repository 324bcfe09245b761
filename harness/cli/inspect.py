"""The command ``inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leakgauge.harness.cli.arguments import Device, Overrides
from leakgauge.harness.cli.json_output import AsJson, json_alone, print_json
from leakgauge.harness.run.inspect import facts_of_inspection, inspect_photograph, layer_table, resolved_text
from leakgauge.harness.suite.schema import load_suite
from leakgauge.harness.system import console
from leakgauge.harness.system.files.output_paths import check_folder_free
from leakgauge.harness.system.machine import choose_device

_out = console.output()


def inspect(
    image: Annotated[Path, typer.Argument(help="An image file; its centre square is used.")],
    suite: Annotated[str, typer.Option(help="A YAML file, or the name of a shipped suite.")] = "quick",
    defense: Annotated[str | None, typer.Option(help="An operating point; default: all but the baseline.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path("runs/inspect"),
    device: Device = "auto",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Draws which patches of an image merge into which token, block by block, with FLOPs and bytes."""
    check_folder_free(out)
    resolved = load_suite(suite, overrides)
    points = []
    with json_alone(as_json):
        for seen, figures in inspect_photograph(image, resolved, defense, out, choose_device(device)):
            _out.print(layer_table(seen))
            if found := resolved_text(seen.resolved):
                _out.print(found, soft_wrap=True, markup=False, highlight=False)
            for path in figures:
                _out.print(str(path), soft_wrap=True, markup=False, highlight=False)
            points.append(facts_of_inspection(seen, figures))
    if as_json:
        print_json({"image": image, "suite": resolved.name, "operating_points": points})
