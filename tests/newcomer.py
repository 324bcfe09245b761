"""Runs the commands of a page in order, in a folder of their own, and holds what they print against the page.

``LEAKGAUGE_REGENERATE=1`` writes what they print into the page instead.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)
SHIM = '#!/bin/sh\nexec {python} {rest} "$@"\n'
SECONDS = 240


def workplace(folder: Path) -> dict[str, str]:
    """Prepares a folder with the commands that an installed environment has; returns its environment.

    ``pip install`` installs beside, not into the environment that runs the tests.
    """
    site, tools = folder.parent / "site", folder.parent / "bin"
    for path in (folder, site, tools):
        path.mkdir(parents=True)
    pip = f"-m pip install --no-index --no-deps --no-build-isolation --target {site}"
    for name, rest in {"leakgauge": "-m leakgauge.harness.cli", "python": "", "pip": pip}.items():
        # The word `install` stands in the shim; the page's own is dropped.
        body = SHIM.format(python=sys.executable, rest=rest)
        (tools / name).write_text(body.replace("exec", "shift\nexec", 1) if name == "pip" else body)
        (tools / name).chmod(stat.S_IRWXU)
    places = [str(site), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(place for place in places if place),
        "LEAKGAUGE_CACHE": str(folder.parent / "cache"),
        "COLUMNS": "160",
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
    }


def played(text: str, folder: Path, *, stop_at: str = "") -> str:
    """Returns the page with what its commands print now.

    Args:
        text: The page.
        folder: The empty folder to work in, made here.
        stop_at: A heading, at which to stop; the rest of the page stays as it is.
    """
    environment = workplace(folder)
    end = text.index(stop_at) if stop_at else len(text)
    parts, place = [], 0
    for block in BLOCK.finditer(text, 0, end):
        language, title, body = block.groups()
        if title:
            path = folder / title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body, encoding="utf-8")
        if language == "console":
            parts += [text[place : block.start(3)], _session(body, folder, environment)]
            place = block.end(3)
    return "".join([*parts, text[place:]])


def _session(body: str, folder: Path, environment: dict[str, str]) -> str:
    lines = []
    for line in (line for line in body.splitlines() if line.startswith("$ ")):
        done = subprocess.run(
            ["bash", "-c", line[2:]],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        said = [part.rstrip() for part in done.stdout.replace(str(folder), ".").splitlines()]
        lines += [line, *(part for part in said if part)]
        if done.returncode:
            raise AssertionError(f"{line}\nended with {done.returncode}:\n{done.stdout}")
    return "\n".join(lines) + "\n"


def plainly(text: str) -> list[str]:
    """Returns the lines of a page without what differs between machines: figures, times, hashes, widths of tables."""
    text = re.sub(r"[━─┄]+", "-", text)
    text = re.sub(r"\b[0-9a-f]{8,64}\b", "HASH", text)
    text = text.replace("unscored", "0")  # LPIPS, where its weights are missing
    text = re.sub("[-+\N{MINUS SIGN}]?" r"\d+(?:[.:]\d+)*(?:e[-+]?\d+)?", "0", text)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    # What a run says once a minute: a fast machine has no minute to say it in.
    lines = [line for line in lines if not line.startswith("at 0: 0 of 0 cells;")]
    # Cells that end together are told in one line: of lines that follow one another and say the same, one counts.
    return [line for line, before in zip(lines, ["", *lines], strict=False) if line != before]
