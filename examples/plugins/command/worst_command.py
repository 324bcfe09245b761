from pathlib import Path
from typing import Annotated

import typer

import leakgauge
from leakgauge.harness.errors import StoreError
from leakgauge.harness.system import console

_out = console.output()


def worst(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Names the image that leaks most, and by which attack."""
    images = leakgauge.open_run(run).images.dropna(subset="leakage")
    if images.empty:
        raise StoreError("no image has a leakage", where=str(run), hint="run a suite with a floor and an attack")
    row = images.loc[images["leakage"].idxmax()]
    said = f"{row['image']} leaks {row['leakage']:.1f} dB at {row['operating_point']}, by {row['attack']}"
    _out.print(said, markup=False, highlight=False)
