"""Grids as Markdown tables, and what Markdown would read as markup escaped."""

from __future__ import annotations

from leakgauge.reports.tables.table import Grid

_SPECIAL = str.maketrans(
    {**{c: f"\\{c}" for c in "\\`*_[]|~#"}, "<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " ", "\r": " "}
)


def escape(text: str) -> str:
    """Escapes what Markdown would read as markup; a line break becomes a space."""
    return text.translate(_SPECIAL)


def table(grid: Grid) -> str:
    """Writes a grid as a pipe table, its caption above."""
    heads = [f"{escape(h.text)} ({escape(h.unit)})" if h.unit else escape(h.text) for h in grid.headings]
    lines = [f"**{escape(grid.caption)}**", "", f"| {' | '.join(heads)} |"]
    lines.append(f"| {' | '.join('---:' if h.numeric else '---' for h in grid.headings)} |")
    for row in grid.rows:
        entries = (escape(f"{value.text} {value.detail}".strip()) for value in row)
        lines.append(f"| {' | '.join(entries)} |")
    return "\n".join(lines)
