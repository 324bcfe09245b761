"""``leakgauge view``: what the list and the pages say, when they change, and whom the server answers."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from simulated_runs import SCRIPT, Simulation, suite_of

from leakgauge.harness.errors import ConfigError, StoreError
from leakgauge.reports.view import command
from leakgauge.reports.view.entries import RunEntries
from leakgauge.reports.view.policy import report_policy
from leakgauge.reports.view.report_cache import ReportCache
from leakgauge.reports.view.server import Server, Site


class Reader:
    """Asks a server as a browser of this machine does."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, place: str, method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, place, skip_host=True)
        if host != "":
            connection.putheader("Host", host or f"localhost:{self.port}")
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, dict(answer.getheaders()), text

    def until(self, place: str, wanted: str) -> str:
        for _ in range(600):
            text = self.ask(place)[2]
            if wanted in text:
                return text
            time.sleep(0.05)
        raise AssertionError(f"{wanted!r} never stood in {place}: {text[:500]}")


def write_page(runs, out: Path) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    cells = len(runs[0].cells())
    (out / "index.html").write_text(f"<p>report of {runs[0].path.name}, {cells} cells</p><script>let one = 1;</script>")
    return [out / "index.html"]


@pytest.fixture
def folder(tmp_path) -> Path:
    Simulation(verdict="inconclusive").write(tmp_path / "runs" / "first")
    Simulation(suite=suite_of(points=("plain", "merged", "third"))).write(tmp_path / "runs" / "deep" / "second")
    return tmp_path / "runs"


@pytest.fixture
def entries(folder) -> RunEntries:
    ticks = iter(range(10**6))
    return RunEntries(folder, clock=lambda: float(next(ticks)))


@pytest.fixture
def reader(entries, tmp_path):
    with Server(Site(entries, ReportCache(tmp_path / "cache", write_page)), 0) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield Reader(server.port)
        server.shutdown()


def key_of(entries: RunEntries, name: str) -> str:
    return next(entry.key for entry in entries.look().values() if entry.name == name)


def test_the_list_tells_of_every_run(entries):
    found = {entry.name: entry for entry in entries.look().values()}
    assert list(found) == ["deep/second", "first"]
    assert (found["deep/second"].done, found["deep/second"].planned) == (6, 6)
    assert found["first"].verdicts == "2 conclusive, 2 inconclusive"
    assert found["first"].status == "complete"


def test_one_that_cannot_be_read_says_why_in_one_line_and_spoils_no_other(reader, folder):
    (folder / "first" / "run.json").write_text('{"schema_version": 99}')
    (folder / SCRIPT.replace("/", "|")).mkdir()
    (folder / SCRIPT.replace("/", "|") / "run.json").write_text("{")
    status, _, text = reader.ask("/")
    assert status == 200
    assert "version 99 is unknown" in text
    assert "6 of 6" in text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_a_run_that_is_a_link_out_of_its_folder_is_not_read(reader, folder, tmp_path):
    other = Simulation().write(tmp_path / "elsewhere")
    (folder / "linked").symlink_to(other.path)
    (folder / "thief").mkdir()
    (folder / "thief" / "run.json").symlink_to(other.path / "run.json")
    text = reader.ask("/")[2]
    assert "a link that leads out" in text
    assert "linked" not in text


def test_a_report_is_made_when_it_is_looked_at_and_again_when_the_run_has_changed(reader, entries, folder, tmp_path):
    key = key_of(entries, "first")
    before = sorted(folder.rglob("*"))
    reader.until(f"/report/{key}", "report of first, 4 cells")
    frame, state = reader.ask(f"/run/{key}")[2], reader.ask(f"/state/{key}")[2]
    assert f'data-page="/report/{key}"' in frame
    assert f'data-state="{state}"' in frame
    assert sorted(folder.rglob("*")) == before, "a run that is shown is not written to"
    assert (tmp_path / "cache" / key / "index.html").is_file()
    listed = reader.ask("/state")[2]
    Simulation(suite=suite_of(points=("plain", "merged", "third"))).write(folder / "first")
    assert reader.ask("/state")[2] != listed
    reader.until(f"/report/{key}", "report of first, 6 cells")
    assert reader.ask(f"/state/{key}")[2] != state


def test_a_run_that_goes_on_is_counted_anew_with_every_cell(entries, folder):
    run = Simulation(status="running").write(folder / "first")
    state = entries.state()
    (run.path / "parts").mkdir()
    assert entries.state() != state
    assert entries.look()[key_of(entries, "first")].status == "running"


def test_a_report_that_cannot_be_made_says_why(entries, tmp_path, folder):
    def broken(runs, out):
        raise SystemExit(1)

    cache = ReportCache(tmp_path / "cache", broken)
    entry = entries.look()[key_of(entries, "first")]
    for _ in range(600):
        made = cache.get(entry)
        if made is not None:
            break
        time.sleep(0.01)
    assert "tried to end the program" in made.error
    assert "\n" not in made.error


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "", "localhost.evil:{port}"]
)
def test_a_name_that_merely_resolves_to_this_machine_is_refused(reader, host):
    status, _, text = reader.ask("/", host=host.format(port=reader.port))
    assert status == 421
    assert "Runs in" not in text


@pytest.mark.parametrize(
    "place",
    [
        "/../../etc/passwd",
        "/report/..%2f..%2fetc%2fpasswd",
        "/report/0123456789abcdef",
        "/report/0123456789abcdef/../x",
        "//etc/passwd",
        "/view.css.j2",
        "/first/run.json",
        "http://evil.example/",
        "/%00",
    ],
)
def test_no_address_becomes_a_path(reader, place):
    status, _, text = reader.ask(place)
    assert status == 404
    assert "root:" not in text


def test_no_other_method_is_answered(reader):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"):
        assert reader.ask("/", method)[0] == 501
    status, headers, text = reader.ask("/", "HEAD")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) > 0


def test_pages_may_do_no_more_than_they_must(reader, entries):
    key = key_of(entries, "first")
    reader.until(f"/report/{key}", "report of first")
    own, report = reader.ask("/")[1], reader.ask(f"/report/{key}")[1]
    for headers in (own, report):
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe-eval" not in headers["Content-Security-Policy"]
    assert "unsafe-inline" not in own["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in own["Content-Security-Policy"]
    scripts = re.search(r"script-src ([^;]*)", report["Content-Security-Policy"])[1]
    assert scripts == "'sha256-apeiYwVJXyVgyP4z/u78fT9T4v2cLo6XFExlULo4Z70='"
    assert not re.search(r"<script(?! src)|style=|onclick", reader.ask("/")[2])


def test_a_report_without_scripts_runs_none():
    assert "script-src 'none'" in report_policy(b"<p>nothing</p>")
    assert report_policy(b"<SCRIPT type='x'>a</script><script>a</script>").count("sha256-") == 1


def test_what_cannot_be_served_is_one_line(tmp_path, entries):
    with pytest.raises(StoreError, match="no such folder"):
        RunEntries(tmp_path / "none")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} is taken"):
            Server(Site(entries, ReportCache(tmp_path / "cache", write_page)), port)


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "leakgauge.harness.cli", "view", str(folder), "--no-open", *arguments]
    environment = {**os.environ, "TMPDIR": str(folder.parent)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_and_leaves_nothing(tmp_path, how):
    tmp_path.joinpath("runs").mkdir()
    process = started(tmp_path / "runs", "--port", "0")
    try:
        port = int(re.search(r"http://localhost:(\d+)/", process.stdout.readline())[1])
        assert "No run yet" in Reader(port).ask("/")[2]
        assert list(tmp_path.glob("leakgauge-view-*"))
        os.kill(process.pid, how)
        said, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")
    assert said == "ended\n"
    assert not list(tmp_path.glob("leakgauge-view-*"))


def test_a_signal_before_it_serves_leaves_nothing_either(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = []

    def signalled(*_):
        made.extend(tmp_path.glob("leakgauge-view-*"))
        os.kill(os.getpid(), signal.SIGTERM)

    # A signal that the command leaves to the process must fail this test, not end all of them.
    def unanswered(*_):
        pytest.fail("SIGTERM was left to the process")

    before = signal.signal(signal.SIGTERM, unanswered)
    try:
        monkeypatch.setattr(command, "Server", signalled)
        command.view(tmp_path, 0, "localhost", open_=False)
        assert signal.getsignal(signal.SIGTERM) is unanswered
    finally:
        signal.signal(signal.SIGTERM, before)
    assert made
    assert not list(tmp_path.glob("leakgauge-view-*"))


def test_another_machine_is_not_served(tmp_path):
    process = started(tmp_path, "--host", "0.0.0.0")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "'0.0.0.0' is not this machine alone" in errors
    assert "ssh -L" in errors
