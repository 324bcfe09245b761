"""Each fault of a run's tables is said on its own, whether or not something else would have caught it."""

from __future__ import annotations

import pytest
from simulated_runs import simulated

from leakgauge.reports.analysis.integrity import table_faults


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return simulated(tmp_path_factory.mktemp("faults") / "run", n=12)


def first(images):
    return images["image"] == images["image"].iloc[0]


DAMAGE = {
    "does not hold all images": (lambda cells: cells, lambda images: images[~first(images)]),
    "not scored on all 12 images": (lambda cells: cells.assign(n=11), lambda images: images[~first(images)]),
    "does not hold as done": (lambda cells: cells[:-1], lambda images: images),
    "not scored on the same images": (
        lambda cells: cells,
        lambda images: images.assign(image=images["image"].mask(first(images) & (images["attack"] == "sharp"), "x")),
    ),
    "name cells otherwise": (lambda cells: cells, lambda images: images.assign(attack="blunt")),
}


def test_a_whole_run_has_none(run):
    assert table_faults(run.manifest, run.cells, run.images) == ()


@pytest.mark.parametrize("said", DAMAGE)
def test_each_damage_is_said(run, said):
    cells, images = DAMAGE[said]
    found = table_faults(run.manifest, cells(run.cells.copy()), images(run.images.copy()))
    assert any(said in fault for fault in found), found
