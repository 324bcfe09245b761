"""What a notebook shows: a bar while a run goes on, figures, and galleries in which every word is escaped."""

from __future__ import annotations

import html
import io
import sys
from importlib import import_module
from typing import Any

from matplotlib.figure import Figure

from leakgauge.reports.writers.gallery import Gallery


def in_notebook() -> bool:
    """Tells whether this process is the kernel of a notebook."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


class NotebookBar:
    """Shows how much is done, of cells or trials: IPython's own bar in a notebook, nothing elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        """Takes how many are done, and how many there are."""
        if not in_notebook():
            return
        if self._bar is None:
            display: Any = import_module("IPython.display")
            self._bar = display.ProgressBar(max(total, 1))
            self._bar.display()
        if done != self._bar.progress:
            self._bar.progress = done


class ShownFigure(Figure):
    """A figure with the picture that a notebook asks an object for."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png")
        return stream.getvalue()


class Markup(str):
    """HTML that a notebook shows."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


def shown_gallery(found: Gallery | None) -> Markup:
    """Returns a gallery, or that there is none, as HTML."""
    if found is None:
        return Markup("<p>no pictures are stored</p>")
    head = "".join(f"<th>{html.escape(text)}</th>" for text in ("", *found.headings))
    body = "".join(
        f"<tr><th>{html.escape(strip.name)}<br><small>{html.escape(strip.detail)}</small></th>"
        + "".join(
            f'<td><img src="{html.escape(one.uri)}" alt="{html.escape(one.alt)}" width="{found.width}">'
            f"<br><small>{html.escape(one.score)}</small></td>"
            for one in strip.pictures
        )
        + "</tr>"
        for strip in found.strips
    )
    return Markup(f"<table><tr>{head}</tr>{body}</table>")
