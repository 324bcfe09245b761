"""The JSON Schema takes what `validate` takes, and refuses what it refuses."""

from __future__ import annotations

import json

import jsonschema
import pytest
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.harness.cli.reference.json_schema import schema_of
from leakgauge.harness.cli.reference.schema import schema
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.configuration import shipped
from leakgauge.harness.system.files.yaml_text import read_yaml

SMALL = {"name": "mine", "task": "photos", "operating_points": [{"name": "undefended"}], "attacks": ["ridge"]}


@pytest.fixture(scope="module")
def checks():
    found = {kind: schema_of(kind) for kind in ("suite", "space")}
    for one in found.values():
        jsonschema.Draft202012Validator.check_schema(one)
    return {kind: jsonschema.Draft202012Validator(one) for kind, one in found.items()}


@pytest.mark.parametrize("kind", ["suite", "space"])
def test_all_that_is_shipped_fits(checks, kind):
    texts = shipped(f"{kind}s")
    assert texts
    wrong = {name: [e.message for e in checks[kind].iter_errors(read_yaml(text))] for name, text in texts.items()}
    assert not {name: errors for name, errors in wrong.items() if errors}


@pytest.mark.parametrize(
    "attack",
    [
        "ridge",
        {"name": "set_decoder", "steps": 1},
        {"label": "mine", "name": "ridge"},
        {"label": "mine", "plugin": {"name": "set_decoder", "steps": 1}},
    ],
)
def test_every_way_to_write_an_attack_fits(checks, attack):
    assert checks["suite"].is_valid({**SMALL, "attacks": [attack]})


@pytest.mark.parametrize(
    "change",
    [
        {"atacks": []},
        {"attacks": []},
        {"attacks": ["rigde"]},
        {"attacks": [{"name": "set_decoder", "stepps": 1}]},
        {"attacks": [{"name": "set_decoder", "steps": 0}]},
        {"attacks": [{"label": "mine", "plugin": {"name": "set_decoder", "steps": "many"}}]},
        {"attacks": [{"label": "mine", "plugin": "ridge"}]},
        {"attacks": [{"plugin": {"name": "ridge"}}]},
        {"task": {"name": "imagefolder", "paht": "here"}},
        {"task": "awgn"},
        {"channels": [{"name": "awgn", "snr_db": 1000}]},
        {"defense": {"name": "split_pipeline", "cut": "deep"}},
        {"operating_points": [{"name": "merged", "reduction": "treshold"}]},
        {"operating_points": [{"reduction": "none"}]},
        {"threat_models": [{"observer": "eavesdropper", "channel": "threshold"}]},
        {"seeds": ["0"]},
        {"evaluation_images": 0},
    ],
)
def test_faulty_suites_do_not_fit(checks, change):
    assert checks["suite"].is_valid(SMALL)
    assert not checks["suite"].is_valid({**SMALL, **change})


def test_the_command_prints_the_schema_of_what_is_installed(checks):
    done = CliRunner().invoke(app, ["schema"])
    assert done.exit_code == 0
    assert json.loads(done.output) == json.loads(json.dumps(checks["suite"].schema))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="no schema of 'siute'"):
        schema("siute")
