"""Files that users write say all that is wrong with them at once: the line, the key that was found, what was meant."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leakgauge.harness.errors import ConfigError, LeakgaugeError, missing_key
from leakgauge.harness.search.space import Space, load_space
from leakgauge.harness.search.space_options import check_space
from leakgauge.harness.suite.registry import name_and_options
from leakgauge.harness.suite.schema import Suite, ThreatModel, load_suite
from leakgauge.harness.suite.schema_problems import keys_at
from leakgauge.harness.suite.text_source import naming_lines
from leakgauge.harness.system.files.json_lines import json_lines
from leakgauge.harness.system.files.yaml_text import lines_of

SUITE = """\
name: mine
task: photos
defense: {name: split_pipeline, cut: 1}
operating_points:
  - name: undefended
channels:
  - {label: noisy, name: awgn, snr_db: 3}
threat_models:
  - name: radio
    observer: eavesdropper
    channel: {name: awgn, snr_db: 0}
attacks:
  - ridge
  - label: linear
    plugin: {name: ridge}
"""
SPACE = """\
name: mine
task: photos
objectives: [quality, leakage]
constraints:
  - {metric: tokens, at_most: 9}
proxy:
  attack: {label: linear, name: ridge}
  floors: [floor_mean]
choices:
  cut: [1, 2]
  codec: [float16]
baselines:
  - name: half
    reduction: {name: tome, r: 2}
remeasure:
  attacks: [ridge]
  threat_models: [{name: all-seeing}]
"""


def said(path, text, load):
    """Returns the lines of what is said of a text, without the folder."""
    path.write_text(text)
    with pytest.raises(LeakgaugeError) as caught:
        load(path.name)
    lines = str(caught.value).splitlines()
    assert all(len(line) <= 200 for line in lines)
    return [line.strip() for line in lines]


def changed(text, *changes):
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def checked(name):
    space = load_space(name)
    with naming_lines(space.source):
        check_space(space)


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # long paths give way to what was found there


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (("name: mine", "nmae: mine"), "suite.yaml:1: nmae: unknown key 'nmae' (did you mean 'name'?)"),
        (
            ("name: mine\n", ""),
            "suite.yaml: no key 'name'; found 'task', 'defense', 'operating_points', 'channels' and",
        ),
        (("task: photos", "task: {Name: photos}"), "suite.yaml:2: task: no key 'name'; found 'Name' (did you"),
        (("{name: split_pipeline", "{naem: split_pipeline"), "suite.yaml:3: defense: no key 'name'; found 'naem' (did"),
        (("- name: undef", "- nmae: undef"), "suite.yaml:5: operating_points.0: no key 'name'; found 'nmae' (did you"),
        (("name: awgn, snr_db: 3", "nam: awgn"), "suite.yaml:7: channels.0 (noisy): no key 'name'; found 'nam' (did"),
        (("name: awgn, snr_db: 3", "snr_db: 3"), "suite.yaml:7: channels.0 (noisy): no key 'name'; found 'label',"),
        (
            ("- name: radio", "- nmae: radio"),
            "suite.yaml:9: threat_models.0.nmae: unknown key 'nmae' (did you mean 'na",
        ),
        (
            ("{name: awgn, snr_db: 0}", "{nmea: awgn}"),
            "suite.yaml:11: threat_models.0.channel (radio): no key 'name'; f",
        ),
        (
            ("- ridge", "- {nmae: ridge}"),
            "suite.yaml:13: attacks.0: no key 'name'; found 'nmae' (did you mean 'name'?)",
        ),
        (
            ("{name: ridge}", "{nmae: ridge}"),
            "suite.yaml:15: attacks.1.plugin (linear): no key 'name'; found 'nmae' (d",
        ),
        (
            ("observer: eavesdropper", "observer: eavesdroper"),
            "suite.yaml:10: threat_models.0.observer (radio): unknown",
        ),
        (("defense: {name: split_pipeline, cut: 1}", "defense: [1]"), "suite.yaml:3: defense: keys and values belong"),
    ],
)
def test_a_required_key_of_a_suite_is_told_with_what_was_found(tmp_path, change, wanted):
    (line,) = said(tmp_path / "suite.yaml", changed(SUITE, change), load_suite)
    assert line.startswith(wanted)


def test_every_required_key_is_told_at_once(tmp_path):
    changes = [("task: photos", "task: {nmae: photos}"), ("- name: undef", "- nmae: undef"), ("- ridge", "- {nam: r}")]
    lines = said(tmp_path / "suite.yaml", changed(SUITE, *changes), load_suite)
    assert lines[0] == "suite.yaml: 3 problems -- mend these"
    assert [line.split(": ")[0] for line in lines[1:]] == ["suite.yaml:2", "suite.yaml:5", "suite.yaml:13"]
    assert all("did you mean 'name'?" in line for line in lines[1:])


def test_all_that_is_wrong_between_keys_is_told_at_once(tmp_path):
    more = "baseline: undefnded\ncells:\n  - attacks: [ridge]\n  - attacks: [rigde]\n    channels: [nosy]\n"
    changes = [("  - name: undefended\n", "  - name: undefended\n  - name: undefended\n")]
    lines = said(tmp_path / "suite.yaml", changed(SUITE, *changes) + more, load_suite)
    assert lines[1:] == [
        "suite.yaml:6: operating_points.1: the name 'undefended' occurs twice; names must be unique -- mend that key",
        "suite.yaml:17: baseline: unknown 'undefnded'; did you mean 'undefended'? -- mend that key",
        "suite.yaml:20: cells.1.attacks: unknown 'rigde'; did you mean 'ridge'? -- mend that key",
        "suite.yaml:21: cells.1.channels: unknown 'nosy'; did you mean 'noisy'? -- mend that key",
    ]
    text = changed(SPACE, ("attack: {", "attack: {"), ("[quality, leakage]", "[quality, quality]"))
    lines = said(tmp_path / "space.yaml", text + "rungs: [0.5, 0.2]\nreference: {tokens: 3}\n", load_space)
    assert [line.split(": ")[0] for line in lines[1:]] == [
        "space.yaml:3",
        "space.yaml:18",
        "space.yaml:18",
        "space.yaml:19",
    ]


def test_a_plug_in_within_an_option_is_told_alike():
    with pytest.raises(ConfigError, match=r"names no reduction: no key 'name'; found 'nmae' \(did you mean 'name'\?\)"):
        name_and_options("reductions", {"nmae": "tome", "r": 2}, "here")
    with pytest.raises(ConfigError, match="names no reduction: no key 'name'; found 'r'"):
        name_and_options("reductions", {"r": 2}, "here")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            ("objectives:", "objektives:"),
            "space.yaml:3: objektives: unknown key 'objektives' (did you mean 'objectives",
        ),
        (
            ("objectives: [quality", "objectives: [qualty"),
            "space.yaml:3: objectives.0: unknown 'qualty' (did you mean '",
        ),
        (
            ("metric: tokens", "metrc: tokens"),
            "space.yaml:5: constraints.0.metrc: unknown key 'metrc' (did you mean 'met",
        ),
        (
            ("metric: tokens, ", ""),
            "space.yaml:5: constraints.0: no key 'metric'; found 'at_most' -- add `metric: ...`",
        ),
        (("  attack:", "  atack:"), "space.yaml:7: proxy.atack: unknown key 'atack' (did you mean 'attack'?)"),
        (
            ("attacks: [ridge]", "attacks: [{nmae: ridge}]"),
            "space.yaml:16: remeasure.attacks.0: no key 'name'; found 'nm",
        ),
        (
            ("- name: half", "- nmae: half"),
            "space.yaml:13: baselines.0: no key 'name'; found 'nmae' (did you mean 'name'",
        ),
        (("proxy:", "proxi:"), "space.yaml:6: proxi: unknown key 'proxi' (did you mean 'proxy'?)"),
        (("[quality, leakage]", "[quality, quality]"), "space.yaml:3: objectives: a metric occurs twice"),
        (("codec: [float16]", "codec: [{bits: 3}]"), "space.yaml:11: choices.codec.0: no key 'name'; found 'bits'"),
    ],
)
def test_a_problem_of_a_space_is_one_line_with_its_place(tmp_path, change, wanted):
    (line,) = said(tmp_path / "space.yaml", changed(SPACE, change), load_space)
    assert line.startswith(wanted)


def test_all_problems_of_a_space_come_at_once_in_its_order(tmp_path):
    changes = [("- name: half", "- nmae: half"), ("cut: [1, 2]", "cut: [0]"), ("task:", "tsk:")]
    lines = said(tmp_path / "space.yaml", changed(SPACE, *changes), load_space)
    assert lines[0] == "space.yaml: 3 problems -- mend these"
    assert [line.split(": ")[0] for line in lines[1:]] == ["space.yaml:2", "space.yaml:10", "space.yaml:13"]
    (tmp_path / "space.yaml").write_text(SPACE)
    with pytest.raises(ConfigError, match=r"^space.yaml \(--set\): trials"):
        load_space("space.yaml", ["trials=none"])


def test_plug_ins_of_a_space_are_all_checked_and_told_with_their_lines(tmp_path):
    changes = [
        ("name: ridge}", "name: rigde}"),
        ("codec: [float16]", "codec: [flot16]"),
        ("r: 2", "q: 2"),
        ("attacks: [ridge]", "attacks: [{name: ridge, penalty: -1}]"),
    ]
    lines = said(tmp_path / "space.yaml", changed(SPACE, *changes), checked)
    assert lines[0] == "space.yaml: 4 problems -- mend these"
    places = [line.split(": ")[:2] for line in lines[1:]]
    assert [place for place, _ in places] == ["space.yaml:7", "space.yaml:11", "space.yaml:13", "space.yaml:16"]
    assert "did you mean 'ridge'?" in lines[1]
    assert "unknown option 'q'" in lines[3]


def test_syntax_names_the_line_where_editors_look_for_it(tmp_path):
    (line,) = said(tmp_path / "space.yaml", "name: x\ntask: [1\nb: 2\n", load_space)
    assert line.startswith("space.yaml:3: not valid YAML: ")


def test_what_may_stand_at_a_path_is_read_from_the_models():
    assert keys_at(Suite, ()) == list(Suite.model_fields)
    assert keys_at(Suite, ("threat_models", 3)) == list(ThreatModel.model_fields)
    assert keys_at(Suite, ("threat_models", 0, "knows")) == ["merge_map", "sizes", "order", "channel_state"]
    assert keys_at(Space, ("proxy", "threat_model", "auxiliary")) == ["domain", "n"]
    assert keys_at(Suite, ("seeds", 0)) == []


def test_a_missing_key_names_what_was_found_within_bounds():
    assert missing_key("name", {"NAME": 1}) == ("no key 'name'; found 'NAME' (did you mean 'name'?)", "NAME")
    assert missing_key("name", {}) == ("no key 'name'; found nothing", "")
    assert missing_key("name", {"names": 1}, known=["names"])[1] == ""
    text, meant = missing_key("name", {"x" * 5000: 1, 3: 2, **{f"key{i}": i for i in range(99)}})
    assert (len(text) < 160, meant) == (True, "")
    assert text.endswith("and 97 more")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def paths_of(data, path=()):
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from paths_of(value, (*path, key))


@given(VALUES, st.sampled_from([None, 1]))
def test_json_knows_the_line_of_every_key_and_item(data, indent):
    text = json.dumps(data, indent=indent)
    lines = json_lines(text)
    assert set(lines) == set(paths_of(data))
    if indent is None:
        assert set(lines.values()) <= {1}
    for path, line in lines.items():
        if indent and isinstance(path[-1], str):
            assert text.split("\n")[line - 1].strip().startswith(json.dumps(path[-1]))


def test_json_lines_agree_with_those_of_yaml():
    text = '{\n "a": [1,\n  {"b:}": "x,\\"]"}, []\n ],\n "c": {\n }\n}'
    assert json_lines(text) == lines_of(text)
    assert json_lines(text)["a", 1, "b:}"] == 3
