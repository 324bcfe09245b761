"""The server: answers GET and HEAD of this machine, from what it knows of runs; no address becomes a path."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from leakgauge.harness.errors import ConfigError
from leakgauge.reports.view.entries import RunEntries, RunEntry
from leakgauge.reports.view.policy import ADDRESS, OWN_PAGE, headers, is_local, report_policy
from leakgauge.reports.view.report_cache import ReportCache

_RUN = re.compile(r"/(run|report|state)/([0-9a-f]{16})")
HTML, TEXT = "text/html; charset=utf-8", "text/plain; charset=utf-8"
_FILES = {"/view.css": "text/css; charset=utf-8", "/live.js": "text/javascript; charset=utf-8"}


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    body: bytes
    kind: str = HTML
    status: HTTPStatus = HTTPStatus.OK
    policy: str = OWN_PAGE


class Site:
    """The pages, by address: the list, a frame for each run, its report, what tells that one changed.

    Args:
        entries: The runs.
        reports: Their reports.
    """

    def __init__(self, entries: RunEntries, reports: ReportCache) -> None:
        self._entries, self._reports = entries, reports
        self._templates = Environment(
            loader=PackageLoader("leakgauge.reports.view"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )

    def answer(self, address: str) -> Answer:
        """Answers a request for an address; its query is of no consequence."""
        place = address.partition("?")[0]
        if place == "/":
            entries = self._entries.look().values()
            return self._page("list", entries=entries, folder=self._entries.folder, state=self._entries.state())
        if place == "/state":
            return Answer(self._entries.state().encode(), TEXT)
        if place in _FILES:
            return Answer(self._templates.get_template(f"{place[1:]}.j2").render().encode(), _FILES[place])
        found = _RUN.fullmatch(place)
        entry = self._entries.look().get(found[2]) if found else None
        if found is None or entry is None:
            return self._missing("There is no such page.")
        return {"run": self._frame, "report": self._report, "state": self._state}[found[1]](entry)

    def _frame(self, entry: RunEntry) -> Answer:
        made = self._reports.get(entry)
        return self._page("run", entry=entry, made=made, state=self._told(entry))

    def _report(self, entry: RunEntry) -> Answer:
        made = self._reports.get(entry)
        if made is None or made.error:
            return self._missing(made.error if made else "The report is being made.")
        return Answer(made.page, policy=report_policy(made.page))

    def _state(self, entry: RunEntry) -> Answer:
        return Answer(self._told(entry).encode(), TEXT)

    def _told(self, entry: RunEntry) -> str:
        """Returns what changes when there is something new to show: another report, or an error of another kind."""
        made = self._reports.get(entry)
        return "making" if made is None else made.stamp

    def _missing(self, why: str) -> Answer:
        return self._page("missing", status=HTTPStatus.NOT_FOUND, why=why)

    def _page(self, name: str, *, status: HTTPStatus = HTTPStatus.OK, **shown: Any) -> Answer:
        return Answer(self._templates.get_template(f"{name}.html.j2").render(**shown).encode(), status=status)


class Server(ThreadingHTTPServer):
    """Serves a site on this machine's own address alone.

    Args:
        site: The pages.
        port: The port; 0 takes a free one.

    Raises:
        ConfigError: The port is taken, or none that this user may listen on.
    """

    daemon_threads = True
    # On Linux a port in use stays refused with this; one whose last server has just ended is free at once.
    allow_reuse_address = True

    def __init__(self, site: Site, port: int) -> None:
        self.site = site
        try:
            super().__init__((ADDRESS, port), Handler)
        except (OSError, OverflowError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            what = f"port {port} is taken" if taken else f"cannot listen on port {port}: {error}"
            raise ConfigError(what, where="--port", hint="choose another, or 0 for any that is free") from error

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of readers who went away."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    timeout = 30
    server_version, sys_version = "leakgauge", ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answers with headers and body."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answers with headers alone."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        if not is_local(self.headers.get("Host"), self.server.port):
            self._send(Answer(b"This server answers to localhost only.\n", TEXT, HTTPStatus.MISDIRECTED_REQUEST), body)
            return
        try:
            answer = self.server.site.answer(self.path)
        except Exception as error:
            said = f"internal error: {type(error).__name__}\n".encode()
            answer = Answer(said, TEXT, HTTPStatus.INTERNAL_SERVER_ERROR)
        self._send(answer, body)

    def _send(self, answer: Answer, body: bool) -> None:
        self.send_response(answer.status)
        for name, value in headers(answer.policy).items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Writes nothing: what a request says must not reach a terminal."""
