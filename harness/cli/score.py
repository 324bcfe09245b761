"""The command ``score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leakgauge.harness.cli.arguments import Device
from leakgauge.harness.cli.json_output import AsJson, json_alone, print_json
from leakgauge.harness.run.rescoring import rescore
from leakgauge.harness.run.run_summary import show, summary_of
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.system import console
from leakgauge.harness.system.containment import staying
from leakgauge.harness.system.machine import choose_device

_out = console.output()


def score(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    device: Device = "auto",
    although_changed: Annotated[
        bool, typer.Option("--although-changed", help="Although data, weights or code are not the run's.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Scores the stored reconstructions of a run again."""
    store = RunFolder.open(run)
    with staying("score"), json_alone(as_json):
        count = rescore(store, choose_device(device), although_changed=although_changed)
        _out.print(f"{count} cells scored again")
        show(store)
    if as_json:
        print_json({"scored": count, **summary_of(store)})
