"""What pages may do, and who may ask for them: the defence of a server that browsers reach from any web page."""

from __future__ import annotations

import base64
import hashlib
import re

ADDRESS = "127.0.0.1"
"""The one address that is listened on; no other machine reaches it."""
_SCRIPT = re.compile(rb"<script\b[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
OWN_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The policy of the list and of the frame around a report."""


def is_local(host: str | None, port: int) -> bool:
    """Tells whether a request names this machine: a name that merely resolves to it (DNS rebinding) is refused.

    Args:
        host: The header ``Host``.
        port: The port that is listened on.
    """
    return host is not None and host.lower() in {f"{name}:{port}" for name in (ADDRESS, "localhost")}


def report_policy(page: bytes) -> str:
    """Returns the policy of a report: its own scripts, by their digests, styles and embedded pictures; no request."""
    digests = (base64.b64encode(hashlib.sha256(script).digest()).decode() for script in _SCRIPT.findall(page))
    scripts = " ".join(dict.fromkeys(f"'sha256-{digest}'" for digest in digests)) or "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )


def headers(policy: str) -> dict[str, str]:
    """Returns the headers of every answer, with its policy."""
    return {**_ALWAYS, "Content-Security-Policy": policy}
