"""The drawing of an inspection: boundaries, letters, colours, layout."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from leakgauge.harness.values.layer_view import Inspection, LayerView
from leakgauge.harness.values.tokens import DROPPED
from leakgauge.reports.figures.merging_figure import (
    DROPPED_GRAY,
    LETTERS,
    boundaries,
    columns_for,
    draw_merging,
    lettered,
    merging_figure,
    painted,
    pieces,
)


def view(layer, tokens, prefix=1):
    """A view whose patches belong to ``tokens`` (rows, columns); token indices include the prefix."""
    merge_map = torch.tensor(tokens).flatten()
    counts = torch.bincount(merge_map[merge_map != DROPPED], minlength=prefix)
    return LayerView(layer, prefix, merge_map, torch.cat([torch.ones(prefix, dtype=torch.long), counts[prefix:]]), 1, 9)


def segments(tokens):
    return {tuple(map(tuple, segment.tolist())) for segment in boundaries(np.array(tokens))}


def test_boundaries_lie_between_tokens_and_nowhere_inside_one():
    assert segments([[1, 1], [1, 1]]) == set()
    assert segments([[1, 2], [1, 2]]) == {((1, 0), (1, 1)), ((1, 1), (1, 2))}
    assert segments([[1, 1], [2, 2]]) == {((0, 1), (1, 1)), ((1, 1), (2, 1))}
    assert segments([[1, 1, 2], [1, 3, 1]]) == {
        ((2, 0), (2, 1)),
        ((1, 1), (2, 1)),
        ((1, 1), (1, 2)),
        ((2, 1), (2, 2)),
    } | {((2, 1), (3, 1))}


def test_every_boundary_of_a_random_map_separates_two_tokens():
    tokens = np.random.default_rng(0).integers(-1, 4, (7, 9))
    found = segments(tokens)
    for r in range(7):
        for c in range(9):
            if c < 8:
                assert (((c + 1, r), (c + 1, r + 1)) in found) == (tokens[r, c] != tokens[r, c + 1])
            if r < 6:
                assert (((c, r + 1), (c + 1, r + 1)) in found) == (tokens[r, c] != tokens[r + 1, c])


def test_dropped_patches_have_no_boundary_between_them():
    assert segments([[DROPPED, DROPPED, 1]]) == {((2, 0), (2, 1))}


def test_only_merged_tokens_are_painted():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    photo = pixels / 255.0
    result = painted(pixels, np.array([[1, 2], [DROPPED, 1]]))
    own = np.concatenate([photo[:4, :4].reshape(-1, 3), photo[4:, 4:].reshape(-1, 3)])
    assert result[:4, :4].reshape(-1, 3).mean(axis=0) == pytest.approx(
        0.75 * own.mean(axis=0) + 0.25 * own[:16].mean(axis=0)
    )
    assert np.array_equal(result[:4, 4:], photo[:4, 4:])
    assert (result[4:, :4] == DROPPED_GRAY).all()


def test_pieces_are_connected_by_sides_not_corners():
    found = pieces(np.array([[1, 0, 1], [0, 1, 1]], dtype=bool))
    assert sorted(len(piece) for piece in found) == [1, 3]


def test_a_letter_stays_with_a_growing_token():
    before = view(0, [[1, 1, 2, 3], [4, 4, 4, 5]])
    after = view(1, [[1, 1, 1, 1], [2, 2, 2, 3]])
    first, second = lettered((before, after))
    assert first == {4: "A", 1: "B"}
    assert second == {2: "A", 1: "B"}


def test_of_two_merging_letters_the_larger_stays():
    first, second = lettered((view(0, [[1, 1, 2, 2, 2, 3]]), view(1, [[1, 1, 1, 1, 1, 2]])))
    assert first == {2: "A", 1: "B"}
    assert second == {1: "A"}


def test_a_letter_of_dropped_patches_is_free_again():
    first, second = lettered((view(0, [[1, 1, 2, 2, 2]]), view(1, [[1, 1, DROPPED, DROPPED, DROPPED]])))
    assert first == {2: "A", 1: "B"}
    assert second == {1: "B"}


def test_no_more_tokens_are_lettered_than_there_are_letters():
    tokens = [[1 + c // 2 for c in range(20)]]
    assert len(lettered((view(0, tokens),))[0]) == len(LETTERS)


def inspection(blocks, tokens):
    pixels = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Inspection("point", pixels, (2, 2), tuple(view(b, tokens) for b in range(blocks)))


def hatched(axes):
    return [c for c in axes.collections if c.get_hatch()]


def test_dropped_patches_are_marked_and_counted():
    axes = merging_figure(inspection(1, [[1, 1], [DROPPED, DROPPED]])).axes[1]
    [marked] = hatched(axes)
    box = marked.get_paths()[0].get_extents()
    assert (box.x0, box.y0, box.x1, box.y1) == (0, 1, 2, 2)
    assert axes.get_xlabel() == "A 2 patches; 2 dropped"
    assert not hatched(merging_figure(inspection(1, [[1, 1], [2, 3]])).axes[1])


@pytest.mark.parametrize(("blocks", "rows", "columns"), [(1, 1, 2), (3, 1, 4), (6, 2, 4), (12, 3, 5)])
def test_a_panel_a_block(blocks, rows, columns):
    seen = inspection(blocks, [[1, 1], [2, 3]])
    panels = [axes for axes in merging_figure(seen).axes if axes.get_visible()]
    assert columns_for(1 + blocks) == columns
    assert [axes.get_title(loc="left").split(":")[0] for axes in panels[1:]] == [
        f"block {b + 1}" for b in range(blocks)
    ]
    assert panels[1].get_title(loc="left") == "block 1: 4 of 5 tokens\n1.00 GFLOP, 0.0 kB"
    width, height = Image.open(io.BytesIO(draw_merging(seen))).size
    assert width == 540 * columns
    assert 540 * rows < height < 540 * rows + 400 + 120 * rows


def test_the_same_inspection_gives_the_same_bytes():
    seen = inspection(2, [[1, 1], [2, 3]])
    assert draw_merging(seen) == draw_merging(seen)
