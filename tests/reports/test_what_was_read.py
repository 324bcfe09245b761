"""The section on what was read: every fact of the record is shown, and a damaged record breaks no report."""

from types import SimpleNamespace

import pytest

from leakgauge.harness.contracts.reading import CopySearch, Preprocessing, Reading, Undefended, Weights
from leakgauge.reports.tables.what_was_read import reading_grids, reading_warnings


def reading() -> Reading:
    return Reading(
        source="photos.zip",
        splits={"attacker": 5, "evaluation": 3},
        preprocessing=Preprocessing(64, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), 0.9, "bicubic", "white", "options"),
        weights=Weights("vit", "abcd1234", "my.safetensors"),
        classes={"cat": {"attacker": 3, "evaluation": 0}, "dog": {"attacker": 2, "evaluation": 3}},
        labels_from="the first folder below the root",
        listed=12,
        skipped={"suffix .heic": 3, "exact copies": 1},
        not_entered={"links back to a folder above": 2},
        converted={"turned upright": 4},
        copies=CopySearch(("mirrored",), {"near copies": 2}, "pattern ^(film)"),
        undefended=Undefended("top-1 accuracy", 0.51, 100, 0.5, "near chance"),
        warnings=("1 class has no image",),
    )


def run(read):
    return SimpleNamespace(manifest={} if read is None else {"read": read}, label="mine")


def test_every_fact_is_shown():
    facts, classes = reading_grids(run(reading().to_json()))
    text = {row[0].text: row[1].text for row in facts.rows}
    assert text["Skipped, by cause"] == "suffix .heic 3, exact copies 1"
    assert text["Listed, used"] == "12, 8"
    assert text["Square cut out"] == "90.0 % of the shorter side"
    assert text["Normalisation"] == "mean 0.1, 0.2, 0.3; deviation 0.5, 0.5, 0.5"
    assert text["Without a defense"] == "top-1 accuracy 0.510 on 100 images; a constant answer: 0.500"
    whole = " ".join(text.values())
    for said in (
        "photos.zip",
        "abcd1234",
        "my.safetensors",
        "turned upright 4",
        "mirrored",
        "near copies 2",
        "film",
        "options",
    ):
        assert said in whole
    assert [[value.text for value in row] for row in classes.rows] == [["cat", "3", "0"], ["dog", "2", "3"]]
    assert reading_warnings(run(reading().to_json())) == ("1 class has no image", "near chance")


@pytest.mark.parametrize(
    "read", [None, {}, [], "x", {"classes": 3, "skipped": [1], "preprocessing": None, "used": "?"}]
)
def test_runs_that_do_not_say_or_say_nonsense_are_reported(read):
    assert reading_warnings(run(read)) == ()
    assert isinstance(reading_grids(run(read)), tuple)
