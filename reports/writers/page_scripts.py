"""What a page runs: its scripts, Vega-Lite among them, data that scripts read, and the policy that forbids all else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from markupsafe import Markup

_UNSAFE_IN_HTML = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"}


@cache
def vega_script() -> str:
    """Returns Vega, Vega-Lite and Vega-Embed as one script, which loads nothing; empty where they are not installed.

    Vega-Embed brings an interpreter of expressions, so that ``ast: true`` draws under a policy without ``eval``.
    """
    try:
        import vl_convert  # noqa: PLC0415 - 80 MB, needed by this page alone
    except ImportError:
        return ""
    library = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # No end of a script and no comment may stand in a script that stands in a page.
    library = library.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return f"(function () {{ {library} }})();"  # its own names stay within


def page_json(data: Any) -> Markup:
    """Returns data as JSON that may stand in a ``<script type="application/json">``: no tag can begin or end in it.

    Raises:
        ValueError: There is a number that is not finite, which JSON does not know.
    """
    return Markup(json.dumps(data, allow_nan=False, separators=(",", ":")).translate(_UNSAFE_IN_HTML))


def policy(scripts: Sequence[str]) -> str:
    """Returns a Content-Security-Policy: these scripts run, pictures are data of the page, nothing else is loaded."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
