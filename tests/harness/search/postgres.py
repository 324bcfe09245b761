"""A PostgreSQL server for tests, where its programs are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


def _program(name: str) -> str | None:
    """Finds a program on the path, or where Debian keeps it."""
    found = [shutil.which(name), *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True))]
    return next((path for path in found if path), None)


def missing() -> str | None:
    """Says what is missing for a server, or None."""
    for name in ("initdb", "postgres"):
        if _program(name) is None:
            return f"no PostgreSQL server here: {name} is not installed"
    return None if find_spec("psycopg") else "the extra [postgres] is not installed"


def _as_server(command: list[str]) -> list[str]:
    """Runs a command as a user that PostgreSQL accepts: it refuses root."""
    return command if os.geteuid() else ["runuser", "-u", "nobody", "--", *command]


@contextmanager
def server() -> Iterator[str]:
    """Starts a server on a free local port and yields the address of its database."""
    with tempfile.TemporaryDirectory(prefix="leakgauge-postgres-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data = str(folder / "data")
        initdb, postgres = _program("initdb"), _program("postgres")
        assert initdb
        assert postgres
        setup = [initdb, "-D", data, "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        subprocess.run(_as_server(setup), check=True, capture_output=True, cwd="/")
        run = [postgres, "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", name, "-F"]
        log = (folder / "log").open("w")
        process = subprocess.Popen(_as_server(run), stdout=log, stderr=log, cwd="/")
        try:
            _wait(port, process)
            yield f"postgresql://tester@127.0.0.1:{port}/postgres"
        finally:
            process.terminate()
            process.wait(30)
            log.close()


def _wait(port: int, process: subprocess.Popen) -> None:
    import time

    import psycopg

    for _ in range(200):
        assert process.poll() is None, "the server ended at once"
        try:
            psycopg.connect(f"postgresql://tester@127.0.0.1:{port}/postgres", connect_timeout=1).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server does not answer")
