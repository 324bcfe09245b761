"""The JSON Schema accepts what users write and what ships, and refuses what the suite itself would refuse."""

import json

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.harness.cli.reference.json_schema import schema_of
from leakgauge.harness.suite.configuration import shipped

SUITE = {
    "name": "s",
    "task": "photos",
    "operating_points": [
        {"name": "undefended"},
        {"name": "merged", "reduction": {"name": "threshold", "thresholds": 0.9}},
    ],
    "attacks": ["floor_mean", {"label": "short", "name": "set_decoder", "steps": 20}],
}


@pytest.fixture(scope="module")
def suites():
    return jsonschema.Draft202012Validator(schema_of("suite"))


@pytest.mark.parametrize("name", sorted(shipped("suites")))
def test_shipped_suites_are_valid(suites, name):
    suites.validate(yaml.safe_load(shipped("suites")[name]))


@pytest.mark.parametrize("name", sorted(shipped("spaces")))
def test_shipped_spaces_are_valid(name):
    jsonschema.Draft202012Validator(schema_of("space")).validate(yaml.safe_load(shipped("spaces")[name]))


def test_the_schema_is_one_and_takes_names_and_options(suites):
    suites.check_schema(suites.schema)
    suites.validate(SUITE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task", "photo"),
        ("attacks", ["ridgy"]),
        ("attacks", [{"name": "set_decoder", "stps": 3}]),
        ("attacks", [{"name": "set_decoder", "steps": "many"}]),
        ("attacks", [{"name": "set_decoder", "steps": 0}]),
        ("attacks", [{"name": "attribute_probe", "unknown": 1}]),
        ("operating_points", [{"name": "merged", "reductoin": "threshold"}]),
        ("operating_points", [{"name": "merged", "reduction": {"name": "threshold", "threshold": 0.9}}]),
        ("operating_points", []),
        ("defense", {"name": "split_pipeline", "cut": 0}),
        ("defense", {"name": "split_pipeline", "victim": "x"}),
        ("channels", [{"name": "awgn", "snr": 3}]),
        ("judge", "nobody"),
        ("seedz", [0]),
    ],
)
def test_what_a_suite_refuses_is_refused(suites, key, value):
    assert list(suites.iter_errors({**SUITE, key: value}))


def test_the_command_prints_it():
    done = CliRunner().invoke(app, ["schema", "space"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["$schema"].startswith("https://json-schema.org")
