"""What `validate` says of attacks' budgets and of too few images."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.harness.run.preview.budgets import MINIMUM_IMAGES, budget_of, too_few
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.reports.gate.limits import Limits


def test_budgets_are_what_the_suite_states_or_the_default():
    attacks = ["floor_mean", {"label": "long", "name": "set_decoder", "steps": 7}]
    suite = parse_suite({"name": "a", "task": "photos", "operating_points": [{"name": "a"}], "attacks": attacks})
    told = dict(budget_of(suite))
    assert told["floor_mean"] == "no steps to set"
    assert "steps 7" in told["long"]


def test_the_warning_is_of_the_gates_own_minimum():
    assert Limits().minimum_images == MINIMUM_IMAGES
    assert too_few(MINIMUM_IMAGES) == ""
    assert f"{MINIMUM_IMAGES - 1} evaluation images" in too_few(MINIMUM_IMAGES - 1)


@pytest.mark.slow  # each loads the whole task
@pytest.mark.parametrize(("images", "warned"), [(MINIMUM_IMAGES - 1, True), (MINIMUM_IMAGES, False)])
def test_validate_tells_both(images, warned):
    command = ["validate", "smoke", "--device", "cpu", "--set", f"evaluation_images={images}"]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "attack set_decoder: steps 30" in done.output
    assert ("of which a gate can tell" in done.output) is warned
