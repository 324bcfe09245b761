"""A sample of the campaign of malformed files; ``python tests/campaigns/malformed.py`` tries them all."""

import pytest
from malformed import Kind, Tally, kinds, try_kind

NAMES = (
    "suite",
    "space",
    "limits",
    "run.json",
    "part",
    "curve",
    "baseline",
    "front",
    "cells.csv",
    "quality_by_kind.csv",
    "images.parquet",
    "sheet",
    "photograph",
    "photograph (JPEG)",
    "trials.db",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, Kind]:
    return {kind.name: kind for kind in kinds(tmp_path_factory.mktemp("files"))}


def test_every_kind_is_tried_and_the_campaign_is_large(written):
    assert tuple(written) == NAMES
    planned = [len(list(kind.changes(kind.path.read_bytes()))) for kind in written.values()]
    assert sum(min(count, 600) for count in planned) > 2000


@pytest.mark.parametrize("name", NAMES)
def test_malformed_files_are_read_or_refused_in_one_line(written, name):
    kind = written[name]
    before = kind.path.read_bytes()
    tally: Tally = try_kind(kind, 10)
    assert tally.failures == []
    assert tally.tried >= 16
    assert tally.refused >= 6
    assert kind.path.read_bytes() == before


def test_a_reader_that_fails_otherwise_is_caught(written):
    def careless(path):
        return {}["key"]

    kind = written["limits"]
    found = try_kind(Kind("limits", kind.path, careless, kind.changes), 3)
    assert len(found.failures) == found.tried + 1
    assert "KeyError" in found.failures[0]
