"""`new` writes suites that the checks accept, and overwrites nothing; `list` knows models and samplers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import timm
from typer.testing import CliRunner

from leakgauge.benchmarks.victims.loading.timm_model import check_model_name
from leakgauge.harness.cli import app
from leakgauge.harness.cli.reference.new import new
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.run.suite_options import check_suite
from leakgauge.harness.search.known_samplers import SAMPLERS
from leakgauge.harness.search.space import SamplerName
from leakgauge.harness.suite.configuration import read_mapping
from leakgauge.harness.suite.planning import check_knowledge, plan
from leakgauge.harness.suite.registry import plugins
from leakgauge.harness.suite.schema import load_suite


@pytest.mark.parametrize("task", sorted(plugins("tasks")))
def test_a_new_suite_of_every_task_passes_the_checks_and_its_schema(task, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    new(file, task)
    suite = load_suite(str(file))
    check_suite(suite)
    check_knowledge(plan(suite, ""))
    assert (suite.name, suite.task.name) == ("mine", task)
    assert file.read_text().startswith("# yaml-language-server: $schema=suite.schema.json\n")
    schema = json.loads((tmp_path / "suite.schema.json").read_text())
    jsonschema.validate(read_mapping(file, "a suite"), schema)


def test_what_must_be_given_is_named_and_what_is_given_stands_there(tmp_path, capsys):
    new(tmp_path / "a.yaml", "imagefolder", ["path='my: photos'"])
    assert "fill in task.model," in "".join(capsys.readouterr().out.split("\n"))
    assert load_suite(str(tmp_path / "a.yaml")).task.options == {"path": "my: photos", "model": "FILL-IN"}


@pytest.mark.parametrize(
    ("name", "task", "options", "why"),
    [
        ("mine.txt", "photos", [], "ends in .yaml"),
        ("mine.yaml", "photoz", [], "photos"),
        ("mine.yaml", "imagefolder", ["paht=x"], "unknown option 'paht'"),
        ("mine.yaml", "imagefolder", ["image_px=0"], "image_px"),
        ("mine.yaml", "imagefolder", ["path"], "not of the form"),
        ("my suite.yaml", "photos", [], "name"),
    ],
)
def test_nothing_is_written_where_something_is_wrong(name, task, options, why, tmp_path):
    with pytest.raises(ConfigError, match=why):
        new(tmp_path / name, task, options)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    file, dangling = tmp_path / "mine.yaml", tmp_path / "dangling.yaml"
    file.write_text("name: precious\n")
    dangling.symlink_to(tmp_path / "elsewhere.yaml")
    for taken in (file, dangling):
        with pytest.raises(ConfigError, match="not overwritten"):
            new(taken)
    assert file.read_text() == "name: precious\n"
    assert not Path(tmp_path / "elsewhere.yaml").exists()


def listed(group: str) -> dict[str, str]:
    done = CliRunner().invoke(app, ["list", group, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)[group]


def test_listed_models_are_those_that_can_be_split():
    names = listed("models")
    assert "vit_small_patch14_dinov2" in names
    assert "resnet18" not in names
    for name in names:
        assert timm.is_model(name)
        check_model_name(name)


def test_listed_samplers_are_those_of_a_space():
    assert set(SAMPLERS) == set(get_args(SamplerName)) == set(listed("samplers"))
