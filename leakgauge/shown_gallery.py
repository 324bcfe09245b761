"""A gallery as a notebook shows it: a table of pictures, in which every word from a run is escaped."""

from __future__ import annotations

import html

from leakgauge.reports.writers.gallery import Gallery


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
