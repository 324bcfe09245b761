"""The composite action names commands, options and inputs that there are."""

import re
from pathlib import Path

import yaml

from leakgauge.harness.cli import commands

ACTION = yaml.safe_load((Path(__file__).parents[2] / ".github/actions/gate/action.yml").read_text())
SCRIPTS = "\n".join(step.get("run", "") for step in ACTION["runs"]["steps"])


def test_it_calls_what_there_is():
    called = re.findall(r"leakgauge (\w+)", SCRIPTS)
    assert called == ["run", "report", "gate"]
    known = set()
    for name in called:
        known |= {option for one in commands.command(name).params for option in one.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z-]+", SCRIPTS)) - {"--quiet"} <= known


def test_every_input_is_used_and_reaches_scripts_through_the_environment_alone():
    text = str(ACTION["runs"])
    for name in ACTION["inputs"]:
        assert f"inputs.{name} " in text, name
    assert "${{" not in SCRIPTS, "an input in a script could run commands"
