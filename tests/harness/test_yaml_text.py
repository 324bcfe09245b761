"""YAML as version 1.2 reads it, and nothing that would hang, overflow or mean two things."""

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.configuration import apply_overrides, read_configuration, read_mapping
from leakgauge.harness.suite.schema import load_suite
from leakgauge.harness.system.files.yaml_text import read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Numbers that YAML 1.1 takes for text, or for another number.
        ("4e-3", 0.004),
        ("1E5", 1e5),
        ("+1e3", 1000.0),
        ("1.", 1.0),
        ("-.5", -0.5),
        ("010", 10),
        ("-007", -7),
        ("0o10", 8),
        ("0x1F", 31),
        ("-.inf", -math.inf),
        (".Inf", math.inf),
        # Text that YAML 1.1 takes for something else.
        *((word, word) for word in ("yes", "no", "on", "off", "Y", "n", "1:30", "1_000", "0b11", "2020-01-01", "=")),
        *((word, None) for word in ("null", "~", "", "NULL")),
        *((word, word.lower() == "true") for word in ("true", "False", "TRUE")),
        *((f"'{word}'", word) for word in ("4e-3", "true", "null", "1")),
        ("!!str 3", "3"),
        ("!!float 3", 3.0),
    ],
)
def test_scalars_of_the_core_schema(text, value):
    found = read_yaml(text)
    assert found == value
    assert type(found) is type(value)
    if text:
        assert read_yaml(f"[{text}]") == [value]
        assert read_yaml(f"{{a: {text}}}") == {"a": value}
        assert apply_overrides({}, [f"a={text}"]) == {"a": value}  # --set reads alike
    assert math.isnan(read_yaml(".nan"))


BOMB = "a: &a [1, 1]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: {c: 1, c: 2}", "key 'c' occurs twice in line 2"),
        ("1: a\n0x1: b", "occurs twice"),
        ("a: &x [*x]", "an alias within its own value in line 1"),
        ("a: &x {b: {c: *x}}", "an alias within its own value"),
        (BOMB, "more than 20000 values"),
        ("[" * 50 + "]" * 50, "nested deeper than 20 levels"),
        ("{a: " * 60_000, "nested deeper than 20 levels"),
        ("- " * 5_000 + "1", "nested deeper than 20 levels"),
        ("a: " + "9" * 5000, "a number of 5000 digits"),
        ("a: 1e999", "beyond all numbers"),
        ('"a\\0b"', "control characters"),
        ('"\\x1b[31m"', "control characters"),
        ('"\\u202e"', "control characters"),
        ('"\\ud800": 1', "lone surrogates"),
        ('"\\U00110000"', "chr"),
        ("a\x00b", "not allowed|unacceptable"),
        ("!!python/object/apply:os.system [x]", "is not read in line 1"),
        ("!!binary aGk=", "is not read"),
        ("!!set {a}", "is not read"),
        ("!!int x", "is not read"),
        ("? [1]\n: 2", "a key that is no scalar"),
        ("a: [", "line 1"),
        ("*x", "undefined alias"),
        ("a\n---\nb", "another document"),
        ("#" * 300_000, "300000 characters"),
    ],
)
def test_what_is_refused_in_one_line(text, said):
    with pytest.raises(ValueError, match=said) as caught:
        read_yaml(text)
    assert len(str(caught.value)) < 150
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**18), 10**18),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), max_size=12),
    st.sampled_from(["4e-3", "010", "1:30", "no", "1_000", "0o7", "<<", "=", "~", ".inf", "0x1F", "1.", "2020-01-01"]),
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abcno0159.e-", min_size=1, max_size=5), st.lists(PLAIN, max_size=4), max_size=4))
def test_what_is_written_reads_back_here_and_by_readers_of_yaml_1_1(data):
    text = write_yaml(data)
    assert read_yaml(text) == data
    assert yaml.safe_load(text) == data


def test_a_learning_rate_reaches_the_suite_as_a_number(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("name: s\ntask: photos\noperating_points: [{name: a}]\nattacks: [{name: ridge, peak_lr: 4e-3}]\n")
    assert load_suite(str(path)).attacks[0].plugin.options == {"peak_lr": 0.004}
    changed = load_suite(str(path), ["attacks.0.peak_lr=5e-4"])
    assert changed.attacks[0].plugin.options == {"peak_lr": 0.0005}
    with_bom = tmp_path / "bom.yaml"
    with_bom.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_suite(str(with_bom)) == load_suite(str(path))


@pytest.mark.parametrize("text", ["a\ud800=1", "a\x1b=1", "a=\x00", "a=\ud800", "a=[", "a={b: 1, b: 2}", "=1"])
def test_an_override_that_is_no_text_is_refused(text):
    with pytest.raises(ConfigError, match="--set") as caught:
        apply_overrides({}, [text])
    assert str(caught.value).isprintable()


def test_what_is_no_file_of_configuration(tmp_path):
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    (tmp_path / "list.yaml").write_text("[1]")
    (tmp_path / "numbers.yaml").write_text("1: 2")
    (tmp_path / "empty.yaml").write_text("")
    for name in ("loop", "folder", "latin", "list", "numbers", "empty", "missing", "a\x00b"):
        for kind in ("suite", "space"):
            with pytest.raises(ConfigError) as caught:
                read_configuration(str(tmp_path / f"{name}.yaml"), kind)
            assert len(str(caught.value)) <= 200
    assert read_mapping(tmp_path / "empty.yaml", "limits") == {}
