"""Text from outside never steers a terminal, breaks an encoding, or becomes a formula."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakgauge.harness.errors import ConfigError, LeakgaugeError, StoreError
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.system.plain_text import formula_guarded, formula_unguarded, is_plain, plain, quoted, shortened

HOSTILE = "\x1b[2J\x1b]0;x\x07 \x9b31m \u202eevil\u2066 \r over \ud800 \u2028 \x00 \x7f \u200b"


@given(st.text(st.characters(exclude_categories=[]), max_size=40))
def test_plain_text_can_be_printed_and_encoded(text):
    safe = plain(text, keep="")
    assert safe.encode().decode() == safe
    assert not {unicodedata.category(c) for c in safe} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert plain(safe, keep="") == safe


def test_what_steers_a_terminal_is_escaped():
    safe = plain(HOSTILE, keep="")
    assert not set(safe) & set("\x1b\x9b\x07\r\x00\x7f\u202e\u2066\u2028\u200b\ud800")
    for word in ("\\x1b[2J", "\\x9b31m", "\\u202eevil", "\\r over", "\\ud800", "\\u2028", "\\x00", "\\u200b"):
        assert word in safe
    assert plain("kept\n\ttoo") == "kept\n\ttoo"
    assert not is_plain("kept\n", keep="")
    assert plain("Zürich 東京 🙂") == "Zürich 東京 🙂"


@pytest.mark.parametrize("kind", [LeakgaugeError, ConfigError, StoreError])
def test_an_error_is_one_bounded_line_whatever_it_quotes(kind):
    for text in (HOSTILE, "x" * 10_000, "a\nb\r\nc", "/very/long" * 500):
        line = str(kind(text, where=text, hint=text))
        assert len(line) <= kind.longest
        assert line.isprintable()
    kept = str(kind("y" * 10_000, where="file.yaml: key", hint="do this"))
    assert kept.startswith("file.yaml: key: y")
    assert kept.endswith(" -- do this")


def test_quotes_are_bounded():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("x" * 10_000, HOSTILE * 9, deep, 10**6000, {"a": 1}, b"x" * 500, 1.5, None, float("nan")):
        assert len(quoted(value)) <= 250
        assert quoted(value).isprintable()
    assert quoted("short") == "'short'"
    assert shortened("abcdefghij", 5) == "ab…ij"


@given(st.text(st.sampled_from("=+-@\t\r'a1.e5\uff1d"), max_size=6))
def test_formulas_are_guarded_and_come_back(text):
    written = formula_guarded(text)
    assert formula_unguarded(written) == text
    assert not written.startswith(("=", "@", "\t", "\r", "\uff1d"))


@pytest.mark.parametrize("number", ["-1", "+2.5", "-.5e3", "3", "-1e-9"])
def test_numbers_stay_numbers(number):
    assert formula_guarded(number) == number


@pytest.mark.parametrize("formula", ["=1+1", "-2+3", "@SUM(A1)", "+cmd|' /C calc'!A0", "\t=1", "-1-", "--1", "'=1"])
def test_formulas_are_no_numbers(formula):
    assert formula_guarded(formula) == "'" + formula


def test_the_log_holds_lines_and_nothing_else(tmp_path):
    RunFolder(tmp_path).log(f"cell failed {HOSTILE}\nforged line")
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert text.count("\n") == 1
    assert text.rstrip("\n").isprintable()
