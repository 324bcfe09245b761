"""Draws an inspection: which patches of one image each token stands for, a panel a block."""

from __future__ import annotations

import io
import textwrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from leakgauge.harness.values.layer_view import Inspection, LayerView
from leakgauge.harness.values.tokens import DROPPED
from leakgauge.reports.figures.palette import COLOURS, INK, MUTED, SETTINGS
from leakgauge.reports.notation import plural

Grid = NDArray[np.int64]
"""(rows, columns): the token of each patch."""
Floats = NDArray[np.float64]

PANEL_INCHES, DPI = 2.7, 200
LETTERS = "ABCDEF"[: len(COLOURS)]
"""So many of the largest tokens of a panel get an outline, a colour and a letter."""
PHOTO_SHARE = 0.25
"""How much of the photograph shows through a merged token's mean colour."""
DROPPED_GRAY = 0.27


def columns_for(panels: int) -> int:
    """Returns how many panels stand side by side."""
    return min(panels, 4 if panels <= 8 else 5)


def tokens_of(view: LayerView, grid: tuple[int, int]) -> Grid:
    """Returns the merge map as (rows, columns)."""
    return np.asarray(view.merge_map.numpy().reshape(grid), dtype=np.int64)


def boundaries(tokens: Grid) -> Floats:
    """Returns the sides at which patches of different tokens meet: (S, 2, 2) end points (x, y), in patches.

    The frame of the image is none of them; neither is the side between two dropped patches.
    """
    above, left = tokens[:-1] != tokens[1:], tokens[:, :-1] != tokens[:, 1:]
    lying = [((c, r + 1), (c + 1, r + 1)) for r, c in np.argwhere(above)]
    standing = [((c + 1, r), (c + 1, r + 1)) for r, c in np.argwhere(left)]
    return np.array(lying + standing, dtype=np.float64).reshape(-1, 2, 2)


def pieces(region: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Returns the connected pieces of a region (rows, columns), each as (patches, 2) rows and columns."""
    left, found = {(int(r), int(c)) for r, c in np.argwhere(region)}, []
    while left:
        piece, edge = set[tuple[int, int]](), [min(left)]
        while edge:
            r, c = edge.pop()
            if (r, c) in left:
                left.remove((r, c))
                piece.add((r, c))
                edge += [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
        found.append(np.array(sorted(piece)))
    return found


def lettered(views: tuple[LayerView, ...]) -> list[dict[int, str]]:
    """Gives the largest merged tokens after each block a letter, kept from block to block while they are the largest.

    Returns:
        For each block the letters by token. Where two lettered tokens merge, the letter of the larger one stays; one
        that is no longer taken may go to another token.
    """
    found: list[dict[int, str]] = []
    for number, view in enumerate(views):
        sizes = {t: int(s) for t, s in enumerate(view.sizes.tolist()) if t >= view.prefix and s > 1}
        inherited: dict[int, str] = {}
        if number:
            before = views[number - 1]
            for token in sorted(found[-1], key=lambda t: (-int(before.sizes[t]), t)):
                inherited.setdefault(int(view.merge_map[before.merge_map == token][0]), found[-1][token])
        # Of equal sizes, those that have a letter already: it should not wander for nothing.
        largest = sorted(sizes, key=lambda t: (-sizes[t], t not in inherited, t))[: len(LETTERS)]
        letters = {t: inherited[t] for t in largest if t in inherited}
        free = [letter for letter in LETTERS if letter not in letters.values()]
        letters.update(zip([t for t in largest if t not in letters], free, strict=False))
        found.append(letters)
    return found


def painted(pixels: NDArray[np.uint8], tokens: Grid) -> Floats:
    """Fills every merged token with the mean colour of its pixels, through which the photograph shows a little.

    Args:
        pixels: (H, W, 3), the image.
        tokens: (rows, columns), the token of each patch.

    Returns:
        (H, W, 3) in [0, 1]. Patches that are alone in their token keep their pixels, dropped ones are dark gray.
    """
    photo = pixels.astype(np.float64) / 255.0
    height, width = photo.shape[:2]
    rows, columns = np.arange(height) * tokens.shape[0] // height, np.arange(width) * tokens.shape[1] // width
    of_pixel, result = tokens[np.ix_(rows, columns)], photo.copy()
    for token in np.unique(tokens):
        own = of_pixel == token
        if token == DROPPED:
            result[own] = DROPPED_GRAY
        elif np.count_nonzero(tokens == token) > 1:
            result[own] = (1 - PHOTO_SHARE) * photo[own].mean(axis=0) + PHOTO_SHARE * photo[own]
    return result


def _outline(region: NDArray[np.bool_]) -> Outline:
    """Returns the area of a region, in patches."""
    squares = [Outline([(c, r), (c + 1, r), (c + 1, r + 1), (c, r + 1), (c, r)]) for r, c in np.argwhere(region)]
    return Outline.make_compound_path(
        *(Outline(s.vertices, [Outline.MOVETO, *[Outline.LINETO] * 3, Outline.CLOSEPOLY]) for s in squares)
    )


def _mark_token(axes: Any, region: NDArray[np.bool_], letter: str) -> None:
    """Outlines a token on the inside of its region and writes its letter into every piece."""
    colour = COLOURS[LETTERS.index(letter)]
    edge = LineCollection(list(boundaries(np.pad(region, 1).astype(np.int64)) - 1), colors=colour, linewidths=4.0)
    axes.add_collection(edge)
    edge.set_clip_path(_outline(region), transform=axes.transData)
    size = min(8.0, 0.62 * 72 * PANEL_INCHES / max(region.shape))
    for piece in pieces(region):
        r, c = piece[np.argmin(((piece - piece.mean(axis=0)) ** 2).sum(axis=1))]
        text = axes.text(c + 0.5, r + 0.53, letter, ha="center", va="center", fontsize=size, color="white")
        text.set_path_effects([withStroke(linewidth=1.6, foreground=INK)])


def _frame(axes: Any, image: Floats, grid: tuple[int, int], title: str) -> None:
    axes.imshow(image, extent=(0, grid[1], grid[0], 0))
    axes.set_title(title, linespacing=1.25)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(True)


def _panel(axes: Any, pixels: NDArray[np.uint8], tokens: Grid, view: LayerView, letters: dict[int, str]) -> None:
    """Draws the tokens after one block."""
    title = f"block {view.layer + 1}: {view.tokens} of {view.unreduced} tokens\n{_cost(view)}"
    _frame(axes, painted(pixels, tokens), (tokens.shape[0], tokens.shape[1]), title)
    if view.dropped:
        gone = PathCollection([_outline(tokens == DROPPED)], facecolor="none", edgecolor="#8a9099", hatch="////")
        gone.set_linewidth(0)
        axes.add_collection(gone)
    # A dark line under a light one shows on any photograph.
    lines = list(boundaries(tokens))
    for colour, width in ((INK, 1.1), ("white", 0.45)):
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, capstyle="projecting"))
    sizes = []
    for letter, token in sorted((letter, token) for token, letter in letters.items()):
        _mark_token(axes, tokens == token, letter)
        sizes.append(f"{letter} {int(view.sizes[token])}")
    words = f"{', '.join(sizes)} patches" if sizes else "nothing merged"
    axes.set_xlabel(words + (f"; {view.dropped} dropped" if view.dropped else ""), fontsize=8, color=MUTED)


def _cost(view: LayerView) -> str:
    digits = 3 if view.gflops < 1 else 2 if view.gflops < 10 else 1
    return f"{view.gflops:.{digits}f} GFLOP, {view.payload_bytes / 1e3:.1f} kB"


def _caption(seen: Inspection) -> str:
    prefix = seen.layers[0].prefix if seen.layers else 0
    words = [
        "GFLOP from the image up to the end of the block, merging included; kB (1000 bytes) of the payload, were it "
        "sent after that block.",
        f"Counts include {plural(prefix, 'protected token')}, not drawn." if prefix else "",
        f"Merged tokens show the mean colour of their patches, with {100 * PHOTO_SHARE:.0f} % of the photograph over "
        "it, for the eye: neither is what the token holds. Patches without a partner keep the photograph. The largest "
        f"tokens, up to {len(LETTERS)} a panel, are outlined: pieces with one letter are one token, which keeps the "
        "letter while it is among the largest.",
        "Hatched: dropped." if any(view.dropped for view in seen.layers) else "",
    ]
    return " ".join(word for word in words if word)


def merging_figure(seen: Inspection) -> Figure:
    """Draws the image and, a panel a block, the regions of its tokens.

    Args:
        seen: What to draw.
    """
    pixels = seen.pixels.permute(1, 2, 0).numpy()
    panels = 1 + len(seen.layers)
    columns = columns_for(panels)
    rows = -(-panels // columns)
    width = PANEL_INCHES * columns
    # About 15 characters of 8 points an inch.
    caption = textwrap.fill(_caption(seen), int(15.5 * width))
    height = 0.35 + (PANEL_INCHES + 0.55) * rows + 0.15 * (1 + caption.count("\n"))
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(f"{seen.name}: what merges", x=0.01, ha="left", fontsize=11, color=INK)
        grid = figure.subplots(rows, columns, squeeze=False).flatten()
        _frame(grid[0], pixels / 255.0, seen.grid, f"image\n{pixels.shape[1]} x {pixels.shape[0]} px")
        grid[0].set_xlabel(f"{seen.grid[0]} x {seen.grid[1]} patches", fontsize=8, color=MUTED)
        for axes, view, letters in zip(grid[1:], seen.layers, lettered(seen.layers), strict=False):
            _panel(axes, pixels, tokens_of(view, seen.grid), view, letters)
        for axes in grid[panels:]:
            axes.set_visible(False)
        figure.supxlabel(caption, x=0.01, ha="left", fontsize=8, color=MUTED, linespacing=1.35)
    return figure


def draw_merging(seen: Inspection) -> bytes:
    """Draws which patches merged into which token, a panel a block, as a PNG."""
    stream = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        merging_figure(seen).savefig(stream, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return stream.getvalue()
