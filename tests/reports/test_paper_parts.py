"""Wide tables on paper: cut into parts that hold every column once, under the same first column."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakgauge.reports.tables.table import Grid, Heading, parts, words


def grid_of(columns, rows=2):
    headings = [Heading(f"c{i}") for i in range(columns)]
    return Grid("wide", headings, [[words(f"{r}.{c}") for c in range(columns)] for r in range(rows)])


@given(st.integers(1, 40), st.integers(2, 12))
def test_every_column_is_in_one_part_and_the_first_in_all(columns, wanted):
    grid = grid_of(columns)
    found = parts(grid, wanted)
    assert all(part.headings[0] == grid.headings[0] and len(part.headings) <= wanted for part in found)
    assert [head for part in found for head in part.headings[1:]] == list(grid.headings[1:])
    for part in found:
        assert all(len(row) == len(part.headings) for row in part.rows)
        assert [row[0].text for row in part.rows] == [row[0].text for row in grid.rows]


def test_a_part_needs_room_for_a_second_column():
    with pytest.raises(ValueError, match="columns = 1"):
        parts(grid_of(3), 1)
