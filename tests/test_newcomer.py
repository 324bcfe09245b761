"""The page of a newcomer's first five minutes does what it says, with the output that it shows."""

from __future__ import annotations

import os

import pytest
from newcomer import ROOT, plainly, played

PAGE = ROOT / "docs" / "start" / "five-minutes.md"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_prints_what_it_shows(tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    now = played(text, tmp_path / "one" / "work")
    if os.environ.get("LEAKGAUGE_REGENERATE"):
        PAGE.write_text(now, encoding="utf-8")
        return
    assert plainly(now) == plainly(text)


def test_the_first_command_prints_what_the_page_shows(tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    now = played(text, tmp_path / "work", stop_at="## A demo picture")
    assert plainly(now) == plainly(text)


def test_figures_may_differ_and_words_may_not():
    assert plainly("│ ridge │ 0.917 │ 24980 │") == plainly("│ ridge  │ 1.20  │ 9 │")
    assert plainly("6 cells: 0 failed") != plainly("6 cells: 0 lost")
    assert plainly("after 0:05, 1a2b3c4d5e6f7a8b") == plainly("after 10:15, ffffffffffffffff")


def test_a_command_that_fails_fails_the_page(tmp_path):
    with pytest.raises(AssertionError, match="ended with 3"):
        played("```console\n$ exit 3\n```\n", tmp_path / "one" / "work")
    with pytest.raises(AssertionError, match="no such"):
        played('```text title="a.txt"\nno such\n```\n```console\n$ cat a.txt; exit 1\n```\n', tmp_path / "two" / "work")
