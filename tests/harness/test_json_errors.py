"""A command that fails under ``--json`` prints one object that says why, and ends as it does without."""

from __future__ import annotations

import io
import json
import sys

import pytest
import typer
from toy_task import SMALL_SUITE, register

from leakgauge.harness import cli
from leakgauge.harness.cli import commands
from leakgauge.harness.cli.commands import json_asked
from leakgauge.harness.cli.json_output import print_json
from leakgauge.harness.errors import ConfigError, InterruptError
from leakgauge.harness.system.exit_codes import ExitCode


@pytest.fixture
def ended(monkeypatch, capsys, tmp_path):
    """Returns what a command line printed and its exit code: (what is on standard output, on standard error, code)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["leakgauge", *map(str, arguments)])
        code = cli._code()
        said = capsys.readouterr()
        return said.out, said.err, code

    return run


FAILING = {
    "run": ("nowhere.yaml",),
    "validate": ("nowhere.yaml",),
    "inspect": ("a.png", "--suite", "nowhere.yaml"),
    "score": ("nowhere",),
    "list": ("nonsense",),
    "show": ("attack", "nonsense"),
    "search": ("nowhere.yaml",),
    "choose": ("nowhere.json",),
    "compare": ("nowhere", "nowhere"),
    "baseline": ("nowhere",),
    "gate": ("nowhere",),
    "runs": ("nowhere",),
}


def test_the_list_of_commands_is_whole():
    named = {name for name in commands.FIRST if any("--json" in one.opts for one in commands.command(name).params)}
    assert set(FAILING) == named


@pytest.mark.parametrize("name", sorted(set(FAILING) - {"runs"}))
def test_every_command_says_why_it_failed(ended, name):
    asked = ("--json", "-") if name == "gate" else ("--json",)
    quiet, line, code = ended(name, *FAILING[name])
    out, err, same = ended(name, *FAILING[name], *asked)
    assert (quiet, err, same) == ("", line, code)
    assert code == ExitCode.MISTAKE
    found = json.loads(out)
    assert set(found) == {"error"}
    assert set(found["error"]) == {"what", "where", "hint", "exit_code"}
    assert found["error"]["exit_code"] == code
    assert found["error"]["what"] in " ".join(err.split())
    assert found["error"]["hint"]


def test_problems_are_listed_each_with_its_line(ended, tmp_path):
    (tmp_path / "s.yaml").write_text("nmae: mine\ntask: photos\noperating_points: [{nmae: a}]\nattacks: [ridge]\n")
    out, err, code = ended("run", "s.yaml", "--json")
    error = json.loads(out)["error"]
    assert (error["what"], error["where"], error["exit_code"]) == ("2 problems", "s.yaml", code)
    assert [one["where"] for one in error["problems"]] == ["s.yaml:1: nmae", "s.yaml:3: operating_points.0"]
    assert all(one["what"] in err and "did you mean 'name'?" in one["what"] for one in error["problems"])


def test_mistakes_of_limits_and_baselines_are_told_by_the_gate(ended, tmp_path):
    (tmp_path / "l.yaml").write_text("minimum_image: 3\ninconclusive: jugde\n")
    out, _, code = ended("gate", "run", "--limits", "l.yaml", "--json", "-")
    assert [one["where"].split(": ")[0] for one in json.loads(out)["error"]["problems"]] == ["l.yaml:1", "l.yaml:2"]
    assert code == ExitCode.MISTAKE
    (tmp_path / "old.json").write_text("{}")
    out, _, code = ended("gate", "run", "--limits", "l.yaml", "--json", "old.json")
    assert (out, code) == ("", ExitCode.MISTAKE)
    assert (tmp_path / "old.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("arguments", "what", "where"),
    [
        (["run", "--json"], "Missing argument", "run"),
        (["run", "--json", "smoke", "--nonsense"], "No such option", "run"),
        (["nonsense", "--json"], "No such command", ""),
    ],
)
def test_mistakes_on_the_command_line_are_told_too(ended, arguments, what, where):
    out, err, code = ended(*arguments)
    error = json.loads(out)["error"]
    assert what in error["what"]
    assert where in error["where"]
    assert "--help" in error["hint"]
    assert (code, error["exit_code"]) == (ExitCode.MISTAKE, ExitCode.MISTAKE)
    assert "error: " in err


@pytest.mark.parametrize(
    ("error", "code", "what"),
    [
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted"),
        (typer.Abort(), ExitCode.INTERRUPTED, "interrupted"),
        (InterruptError("interrupted; kept", hint="again"), ExitCode.INTERRUPTED, "interrupted; kept"),
        (MemoryError(), ExitCode.MISTAKE, "out of memory:"),
        (OSError(28, "No space left on device", "/full"), ExitCode.MISTAKE, "No space left on device"),
        (ValueError("a\x1b[2J\nb"), ExitCode.FAULT, "internal error: ValueError: a\\x1b[2J b"),
        (ConfigError("bad \x1b[2J", where="a\nb"), ExitCode.MISTAKE, "bad \\x1b[2J"),
    ],
)
def test_whatever_is_raised_is_told_in_one_object(ended, monkeypatch, error, code, what):
    def raising(*_, **__):
        raise error

    monkeypatch.setattr(cli, "app", raising)
    out, err, ended_with = ended("run", "--json")
    told = json.loads(out)["error"]
    assert (told["what"], told["exit_code"], ended_with) == (what, code, code)
    assert "\x1b" not in out + err
    assert "\n" not in told["where"]


def test_an_object_of_the_command_is_the_only_one(ended, monkeypatch):
    def after(*_, **__):
        print_json({"cells": 3})
        raise ConfigError("late")

    monkeypatch.setattr(cli, "app", after)
    out, err, code = ended("run", "--json")
    assert json.loads(out) == {"cells": 3}
    assert (err, code) == ("error: late\n", ExitCode.MISTAKE)
    out, _, _ = ended("run", "--json")  # and the next command line starts anew
    assert json.loads(out) == {"cells": 3}


def test_a_run_whose_cells_failed_prints_its_results_alone(ended, monkeypatch, tmp_path):
    from leakgauge.attacks.ridge import Ridge

    def broken(self, view, auxiliary, rng):
        raise ArithmeticError("broken")

    register(monkeypatch, tasks_toy="toy_task:Toy")
    monkeypatch.setattr(Ridge, "fit", broken)
    (tmp_path / "s.yaml").write_text(json.dumps({**SMALL_SUITE, "name": "told"}))
    out, err, code = ended("run", "s.yaml", "--out", "run", "--workers", 1, "--json")
    assert json.loads(out)["failed"] == 1
    assert code == ExitCode.CELLS_FAILED
    assert "error: " in err


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["run", "x", "--json"], True),
        (["run", "--", "--json"], False),
        (["run", "x", "--set", "a=--json"], False),
        (["gate", "x", "--json", "-"], True),
        (["gate", "x", "--json=-"], True),
        (["gate", "x", "--json", "out.json"], False),
        (["gate", "x"], False),
        (["nonsense", "--json"], True),
        (["--json"], True),
        ([], False),
    ],
)
def test_json_is_asked_for_where_standard_output_is_to_have_it(arguments, asked):
    assert json_asked(arguments) == asked


def test_a_standard_output_without_unicode_still_gets_json(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace"))
    print_json({"é": "…"})
    assert json.loads(raw.getvalue().decode("ascii")) == {"é": "…"}
