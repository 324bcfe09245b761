"""``--json``: one strict object on standard output and nothing else there, whatever is printed beside it."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_task import SMALL_SUITE, register
from typer.testing import CliRunner

from leakgauge.harness.cli import app, commands
from leakgauge.harness.cli.json_output import json_alone, plain_data, to_json
from leakgauge.harness.errors import LeakgaugeError
from leakgauge.harness.system import console
from leakgauge.harness.system.exit_codes import MEANINGS, ExitCode
from leakgauge.harness.values.columns import CELL_COLUMNS

ROOT = Path(__file__).parents[2]
SUITE = {**SMALL_SUITE, "name": "told"}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    register(monkeypatch, tasks_toy="toy_task:Toy")


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "suite.yaml").write_text(json.dumps(SUITE))
    return str(tmp_path / "suite.yaml")


def called(*arguments):
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output + str(done.exception)
    return json.loads(done.stdout, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.recursive(
        FLOATS | st.text() | st.none() | st.booleans() | st.integers(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_whatever_is_given_is_strict_json(data):
    def refused(word):
        raise AssertionError(word)

    read = json.loads(to_json(data), parse_constant=refused)
    assert read == plain_data(data)


def test_numbers_of_libraries_are_plain_and_what_is_no_data_is_refused():
    given_ = {"a": np.float32(0.5), "b": np.int64(3), "c": torch.tensor(2), "d": np.float64("nan"), "e": Path("x/y")}
    given_ |= {"f": (math.inf, np.bool_(True)), "g": ExitCode.WORSE, 3: None}
    wanted = {"a": 0.5, "b": 3, "c": 2, "d": None, "e": "x/y", "f": [None, True], "g": 1, "3": None}
    assert json.loads(to_json(given_)) == wanted
    with pytest.raises(TypeError, match="is no data"):
        to_json({"a": object()})


def test_consoles_speak_on_standard_error_meanwhile(capsys):
    out = console.output()
    with json_alone(True):
        out.print("beside")
    out.print("after")
    with json_alone(False):
        out.print("plain")
    said = capsys.readouterr()
    assert said.out.split() == ["after", "plain"]
    assert said.err.split() == ["beside"]
    with json_alone(True):
        print("a plug-in")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "a plug-in\n")
    with pytest.raises(ValueError, match="x"), json_alone(True):
        raise ValueError("x")
    out.print("still here")
    assert capsys.readouterr().out.split() == ["still", "here"]


def test_libraries_and_workers_that_write_past_python_do_too(capfd):
    program = "print('a worker', flush=True)"
    with json_alone(True):
        os.write(1, b"a library\n")
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    console.write_out("the object\n")
    said = capfd.readouterr()
    assert said.out == "the object\n"
    assert said.err.splitlines() == ["a library", "a worker"]


def test_run_score_and_runs(suite, tmp_path):
    out = tmp_path / "runs" / "one"
    dry = called("run", suite, "--out", out, "--workers", 1, "--dry-run", "--json")
    assert (dry["suite"], dry["cells"]) == ("told", 2)
    assert any("would measure 2 of 2" in line for line in dry["forecast"])
    found = called("run", suite, "--out", out, "--workers", 1, "--json")
    assert (found["suite"], found["status"], found["failed"]) == ("told", "complete", 0)
    assert [cell["attack"] for cell in found["cells"]] == ["floor_mean", "ridge"]
    assert set(found["cells"][0]) == {column.name for column in CELL_COLUMNS}
    stored = pd.read_csv(out / "cells.csv")
    assert [cell["psnr_db"] for cell in found["cells"]] == pytest.approx(stored["psnr_db"].tolist())
    assert found["cells"][0]["ssim"] is None
    assert sum(found["verdicts"].values()) == 2
    scored = called("score", out, "--json")
    assert scored["scored"] == 2
    assert scored["cells"][1]["psnr_db"] == pytest.approx(found["cells"][1]["psnr_db"])
    (listed,) = called("runs", out.parent, "--json")["runs"]
    assert listed["suite"] == "told"
    assert listed["operating_points"][0]["operating_point"] == "undefended"
    (out / "cells.csv").write_text("broken")
    (listed,) = called("runs", out.parent, "--json")["runs"]
    assert "error" in listed


def test_validate_compare_baseline_and_gate(suite, tmp_path):
    said = called("validate", suite, "--json")
    assert said["read"]["used"] > 0
    assert [one["attack"] for one in said["attacks"]] == ["floor_mean", "ridge"]
    assert said["operating_points"][0]["tokens_kept"] == 1.0
    assert any("fewer than" in warning for warning in said["warnings"])
    out = tmp_path / "one"
    called("run", suite, "--out", out, "--workers", 1, "--json")
    compared = called("compare", out, out, "--json")
    assert {row["outcome"] for row in compared["rows"]} <= {"identical", "not comparable"}
    base = called("baseline", out, "--out", tmp_path / "base.json", "--json")
    assert base["operating_points"][0]["operating_point"] == "undefended"
    done = CliRunner().invoke(app, ["gate", str(out), "--baseline", str(tmp_path / "base.json"), "--json", "-"])
    judged = json.loads(done.stdout)
    assert judged["exit_code"] == done.exit_code == ExitCode.CANNOT_TELL
    assert "CANNOT TELL" in done.stderr
    assert not (tmp_path / "-").exists()


def test_cells_that_failed_are_told_and_end_with_their_code(suite, tmp_path, monkeypatch):
    from leakgauge.attacks.ridge import Ridge

    def broken(self, view, auxiliary, rng):
        raise ArithmeticError("broken")

    monkeypatch.setattr(Ridge, "fit", broken)
    done = CliRunner().invoke(app, ["run", suite, "--out", str(tmp_path / "run"), "--workers", "1", "--json"])
    assert json.loads(done.stdout)["failed"] == 1
    assert isinstance(done.exception, LeakgaugeError)
    assert done.exception.exit_code == ExitCode.CELLS_FAILED


def test_every_json_option_is_where_it_is_said_to_be():
    named = {}
    for name in commands.FIRST:
        found = commands.command(name)
        named[name] = any("--json" in parameter.opts for parameter in found.params)
    wanted = {"run", "validate", "list", "show", "score", "compare", "baseline", "gate", "runs", "search", "choose"}
    assert {name for name, has in named.items() if has} >= wanted


def test_no_code_stands_beside_the_table():
    literal = re.compile(r"(?:Exit|exit_code\s*=|_fail\([^)]*,)\s*\(?\s*\d+\)|exit_code\s*=\s*\d+")
    for folder in ("harness", "reports"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = [line for line in path.read_text().splitlines() if literal.search(line)]
            assert not [line for line in lines if "SystemExit" not in line], path
    assert set(MEANINGS) == set(ExitCode)
