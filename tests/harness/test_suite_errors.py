"""Errors of a suite name the file's line and what stands there, and come all at once."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from toy_task import register

from leakgauge.harness.errors import (
    AccessDeniedError,
    ConfigError,
    LeakgaugeError,
    ProblemsError,
    StoredProblemsError,
    StoreError,
)
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.suite.schema import load_suite, parse_suite
from leakgauge.harness.system.files.yaml_text import lines_of

CPU = torch.device("cpu")
SUITE = """\
name: mine
task: toy
defense: {name: split_pipeline, cut: 1}
operating_points:
  - name: undefended
  - name: half
    reduction:
      name: tome
      r: 2
attacks:
  - floor_mean
  - {label: linear, name: ridge}
metrics: [psnr_db]
judge: victim
evaluation_images: 4
"""


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # long paths give way to what was found there
    register(monkeypatch, tasks_toy="toy_task:Toy")


def said(tmp_path, *changes, overrides=()):
    """Returns the lines of what is said of the suite with some of its text replaced, without the folder."""
    text = SUITE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(LeakgaugeError) as caught:
        prepare(load_suite(path.name, list(overrides)), CPU)
    lines = str(caught.value).splitlines()
    assert all(len(line) <= 200 for line in lines)
    return lines


def test_lines_are_those_of_keys_and_items():
    lines = lines_of(SUITE)
    assert lines["name",] == 1
    assert lines["operating_points", 1, "reduction", "r"] == 9
    assert lines["attacks", 1] == lines["attacks", 1, "label"] == 12
    assert lines_of("a: [1, 2") == {}
    assert lines_of("a: &x [1]\nb: *x")["b", 0] == 1
    assert lines_of("") == {}


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            ("r: 2", "q: 2"),
            "suite.yaml:6: operating point 'half' (defense 'split_pipeline'): reduction 'tome': unknown option 'q'",
        ),
        (("name: half", "name: undefended"), "suite.yaml:6: operating_points.1: the name 'undefended' occurs twice"),
        (
            ("name: ridge", "name: rigde"),
            "suite.yaml:12: attacks: linear: unknown attack 'rigde' -- did you mean 'ridge'?",
        ),
        (
            ("label: linear", "lable: linear"),
            "suite.yaml:12: attacks: ridge: unknown key 'lable' -- did you mean 'label'?",
        ),
        (
            ("judge: victim", "channels: [{lable: a, name: ideal}]"),
            "suite.yaml:14: channels: ideal: unknown key 'lable'",
        ),
        (("name: ridge}", "name: ridge, penalty: -1}"), "suite.yaml:12: attacks: linear (attack 'ridge'): penalty"),
        (("task: toy", "task: {name: toy, sise: 3}"), "suite.yaml:2: task"),
        (
            ("evaluation_images: 4", "evaluation_images: four"),
            "suite.yaml:15: evaluation_images: Input should be a valid integer",
        ),
        (("attacks:", "atacks:"), "suite.yaml:10: atacks: unknown key 'atacks' (did you mean 'attacks'?)"),
        (("- name: half", "- nam: half"), "suite.yaml:6: operating_points.1: no key 'name'; found 'nam' (did you mean"),
        (("name: tome", "nmae: tome"), "suite.yaml:6: operating point 'half' (defense 'split_pipeline'): reduction"),
        (
            ("judge: victim", "threat_models: [{name: x, observer: eavesdropper}]"),
            "suite.yaml:14: threat_models.0 (x): an eavesdropper needs",
        ),
    ],
)
def test_one_problem_is_one_line_with_its_place(tmp_path, change, wanted):
    (line,) = said(tmp_path, change)
    assert line.startswith(wanted)


def test_all_problems_come_at_once_in_the_order_of_the_file(tmp_path):
    lines = said(tmp_path, ("r: 2", "q: 2"), ("name: ridge", "name: rigde"), ("[psnr_db]", "[psnr]"))
    assert lines[0] == "suite.yaml: 3 problems -- mend these"
    assert [line.split(": ")[0].strip() for line in lines[1:]] == ["suite.yaml:6", "suite.yaml:12", "suite.yaml:13"]
    lines = said(tmp_path, ("name: mine", "nam: mine"), ("judge: victim", "jugde: victim"), ("images: 4", "images: -4"))
    assert lines[0] == "suite.yaml: 3 problems -- mend these"
    assert [line.split(": ")[0].strip() for line in lines[1:]] == ["suite.yaml:1", "suite.yaml:14", "suite.yaml:15"]


def test_what_an_override_did_is_said_to_be_its(tmp_path):
    (line,) = said(tmp_path, overrides=["attacks.linear.penalti=3"])
    assert line.startswith("suite.yaml (--set): attacks: linear")
    (line,) = said(tmp_path, ("r: 2", "q: 2"), overrides=["seeds=[1]"])
    assert line.startswith("suite.yaml:6: ")
    (line,) = said(tmp_path, overrides=["evaluation_images=none"])
    assert line.startswith("suite.yaml (--set): evaluation_images")


def test_what_is_not_granted_is_told_as_before(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.replace("{label: linear, name: ridge}", "rmle"))
    with pytest.raises(AccessDeniedError) as caught:
        prepare(load_suite(str(path)), CPU)
    assert "which threat model 'server' does not grant" in str(caught.value)


def test_shipped_and_given_suites_have_lines_only_where_there_is_a_text():
    with pytest.raises(ConfigError, match=r"^smoke \(--set\): evaluation_images"):
        load_suite("smoke", ["evaluation_images=x"])
    with pytest.raises(ConfigError, match=r"^mine: evaluation_images"):
        parse_suite(
            {
                "name": "a",
                "task": "toy",
                "operating_points": [{"name": "u"}],
                "attacks": ["ridge"],
                "evaluation_images": "x",
            },
            where="mine",
        )


def test_what_may_be_of_two_kinds_is_told_once(tmp_path):
    (line,) = said(tmp_path, ("judge: victim", "cells: [{channels: 3}]"))
    assert line.startswith("suite.yaml:14: cells.0.channels")


def test_problems_travel_between_processes():
    one = ProblemsError([ConfigError("a", where="x"), ConfigError("b", hint="c")], "s.yaml")
    again = pickle.loads(pickle.dumps(one))
    assert str(again) == str(one) == "s.yaml: 2 problems -- mend these\n  x: a\n  b -- c"
    many = StoredProblemsError([StoreError("w" * 900, where="p" * 90, hint="m" * 90)] * 25, "s.json", "write it again")
    assert pickle.loads(pickle.dumps(many)).problems[0].what == "w" * 900
    lines = str(many).splitlines()
    assert lines[0] == "s.json: more than 20 problems, the first of them -- write it again"
    assert len(lines) == 21
    assert max(map(len, lines)) <= 200


@pytest.mark.parametrize(
    ("task", "moved"),
    [
        ({"name": "gqa", "path": "data", "model": "llava"}, {"path", "model"}),
        ({"name": "scienceqa", "path": "data", "model": "llava"}, {"path", "model"}),
        ({"name": "imagefolder", "path": "data", "model": "llava", "library": "transformers"}, {"path", "model"}),
        ({"name": "imagefolder", "path": "data", "model": "vit_tiny_patch16_224"}, {"path"}),
        ({"name": "tensors", "path": "data"}, {"path"}),
    ],
)
def test_files_and_model_folders_are_found_beside_the_suite(tmp_path, monkeypatch, task, moved):
    for name in ("data", "llava", "vit_tiny_patch16_224"):
        (tmp_path / "there" / name).mkdir(parents=True)
    (tmp_path / "there" / "suite.yaml").write_text(SUITE.replace("task: toy", f"task: {json.dumps(task)}"))
    monkeypatch.chdir(tmp_path)
    options = load_suite("there/suite.yaml").task.options
    for key in ("path", "model"):
        if key in task:
            assert options[key] == (f"there/{task[key]}" if key in moved else task[key]), key
