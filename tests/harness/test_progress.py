"""A run tells where it stands: after every cell that is measured here, and without a terminal in lines."""

from __future__ import annotations

import json

import pytest
import torch
from toy_task import SMALL_SUITE, register
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.suite.schema import parse_suite

CPU = torch.device("cpu")
SUITE = {**SMALL_SUITE, "name": "progress"}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    register(monkeypatch, tasks_toy="toy_task:Toy")


@pytest.mark.parametrize("workers", [1, 3])
def test_every_cell_of_the_one_exposure_moves_the_bar(tmp_path, workers):
    seen: list[tuple[int, int]] = []
    plan = prepare(parse_suite(SUITE), CPU)
    run_suite(plan, tmp_path / "run", CPU, workers, lambda done, total: seen.append((done, total)))
    assert list(dict.fromkeys(seen)) == [(0, 2), (1, 2), (2, 2)]


def test_without_a_terminal_there_is_a_line_a_cell(tmp_path):
    (tmp_path / "suite.yaml").write_text(json.dumps(SUITE))
    command = ["run", str(tmp_path / "suite.yaml"), "--out", str(tmp_path / "run"), "--device", "cpu", "--workers", "1"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if " cells after 0:" in line]
    assert [line.split(" after")[0] for line in lines] == ["1 of 2 cells", "2 of 2 cells"]
    again = CliRunner().invoke(app, command)
    assert " after " not in again.output.replace("2 of 2 cells after 0:00", "")
