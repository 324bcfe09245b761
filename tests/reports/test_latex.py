"""LaTeX tables: nothing from a run is a command, unscored stays unscored, and the page compiles."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_runs import SCRIPT, Simulation, suite_of

from leakgauge.reports.writers.latex import escape, write_latex

SUITE = suite_of(
    points=["plain", "merged_0.90"],
    attacks=["flat", {"label": "sharp_1", "plugin": {"name": SCRIPT}}, "other"],
)


@given(st.text())
def test_escaped_text_holds_no_command(text):
    escaped = escape(text)
    bare = re.sub(r"\\(text[a-z]+\{\}|[&%$#_{}])|\$-\$|~", "", escaped)
    assert not set(bare) & set("\\&%$#_{}~^")
    assert all(" " <= c <= "~" or "\xa1" <= c <= "\xff" for c in escaped)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latex")
    write_latex([Simulation(suite=SUITE, verdict="inconclusive", lpips=False).write(folder / "run")], folder)
    return folder


def test_tables_say_what_was_measured(out):
    text = (out / "tables.tex").read_text()
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    assert r"merged\_0.90\textsuperscript{*}" in text
    points = text.split(r"\end{table}")[0]
    # LPIPS and what the judge says, of both points: the simulated run has neither.
    assert points.count("unscored") == 4
    rows = [line for line in points.splitlines() if "&" in line]
    assert len({line.count("&") for line in rows}) == 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_page_compiles(out):
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables_page.tex"]
    result = subprocess.run(command, cwd=out, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stdout[-2000:]
    assert (out / "tables_page.pdf").stat().st_size > 5000
