"""What the command line tells of plug-ins, suites and itself."""

from __future__ import annotations

import json
import os

import pytest
import torch
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.harness.cli.reference.docstrings import body_of, meanings_of
from leakgauge.harness.cli.reference.show import facts_of
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.run.executors import default_workers
from leakgauge.harness.suite.registry import GROUPS, plugins


def said(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("group", [group for group in GROUPS if group not in ("suites", "reports", "figures")])
def test_every_option_of_every_plug_in_is_explained(group):
    unsaid = [
        f"{name}: {option['name']}"
        for name in plugins(group)
        for option in facts_of(group, name)["options"]
        if not option["means"] or option["is"] == "anything"
    ]
    assert unsaid == []


class Base:
    """Does one thing.

    And more,
    on two lines.

    Args:
        size: How large; a
            second line.
    """


class Derived(Base):
    """Does another.

    Args:
        speed (float): How fast.

    Raises:
        ValueError: Not an argument.
    """


def test_docstrings_are_read_as_they_are_written():
    assert body_of(Base) == "Does one thing.\n\nAnd more, on two lines."
    assert meanings_of(Derived) == {"speed": "How fast.", "size": "How large; a second line."}
    assert body_of(test_docstrings_are_read_as_they_are_written) == ""


def test_one_plug_in_is_shown():
    text = said("show", "attack", "ridge")
    assert "leakgauge.attacks.ridge:Ridge" in text
    assert "closed_form" in text
    data = json.loads(said("show", "reductions", "proportion", "--json"))
    assert [option["name"] for option in data["options"]][:2] == ["proportions", "similarity"]
    assert data["options"][0]["default"] == "must be given"
    assert said("show", "suite", "smoke").startswith("name: smoke")
    for wrong, hint in ((["attak", "x"], "did you mean 'attack'"), (["attack", "ridg"], "did you mean 'ridge'")):
        with pytest.raises(ConfigError, match=hint):
            said("show", *wrong)
    with pytest.raises(ConfigError, match="did you mean 'smoke'"):
        said("show", "suite", "smok")


def test_lists_as_data():
    data = json.loads(said("list", "--json"))
    assert {"attacks", "suites", "spaces", "commands"} <= set(data)
    assert data["attacks"]["ridge"].startswith("One linear map")
    assert set(json.loads(said("list", "spaces", "--json"))) == {"spaces"}


def test_version():
    assert said("--version").startswith("leakgauge ")


def test_cores_are_counted_where_the_system_does_not_say_which_are_usable(monkeypatch):
    assert default_workers(torch.device("cpu")) == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert default_workers(torch.device("cpu")) == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_workers(torch.device("cpu")) == 1


def test_steps_are_told_of_attacks_that_take_some():
    assert facts_of("attacks", "set_decoder")["least_steps"] >= 100
    assert "least_steps" not in facts_of("attacks", "ridge")
