"""Keys of a suite are set by label, and files are found beside it."""

from __future__ import annotations

import pytest

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.configuration import apply_overrides
from leakgauge.harness.suite.schema import load_suite
from leakgauge.harness.system.files.yaml_text import write_yaml


def data():
    return {
        "attacks": ["ridge", {"label": "long", "name": "set_decoder"}, {"label": "in", "plugin": {"name": "sara"}}],
        "operating_points": [{"name": "threshold_0"}, {"name": "threshold_0.90", "reduction": {"name": "threshold"}}],
        "threat_models": [{"name": "server"}],
    }


@pytest.mark.parametrize(
    ("override", "axis", "place", "wanted"),
    [
        ("attacks.ridge.penalty=2", "attacks", 0, {"name": "ridge", "penalty": 2}),
        ("attacks.ridge=sara", "attacks", 0, "sara"),
        ("attacks.long.steps=1", "attacks", 1, {"label": "long", "name": "set_decoder", "steps": 1}),
        ("attacks.in.steps=1", "attacks", 2, {"label": "in", "plugin": {"name": "sara", "steps": 1}}),
        ("attacks.in.label=out", "attacks", 2, {"label": "out", "plugin": {"name": "sara"}}),
        ("attacks.-1.label=out", "attacks", 2, {"label": "out", "plugin": {"name": "sara"}}),
        ("operating_points.threshold_0.cut=2", "operating_points", 0, {"name": "threshold_0", "cut": 2}),
        (
            "operating_points.threshold_0.90.reduction.thresholds=0.8",
            "operating_points",
            1,
            {"name": "threshold_0.90", "reduction": {"name": "threshold", "thresholds": 0.8}},
        ),
        ("threat_models.server.auxiliary.n=3", "threat_models", 0, {"name": "server", "auxiliary": {"n": 3}}),
    ],
)
def test_set_finds_items_by_label(override, axis, place, wanted):
    changed, before = apply_overrides(data(), [override]), data()
    assert changed[axis][place] == wanted
    before[axis][place] = wanted
    assert changed == before  # and nothing else


@pytest.mark.parametrize("override", ["attacks.rigde.penalty=2", "operating_points.threshold_1.cut=2", "attacks.=1"])
def test_an_unknown_label_is_refused(override):
    with pytest.raises(ConfigError, match="cannot set") as caught:
        apply_overrides(data(), [override])
    assert len(str(caught.value)) <= 200


def test_lists_within_lists_are_counted_through():
    assert apply_overrides({"a": [[1, 2], [3, 4]]}, ["a.1.0=5"]) == {"a": [[1, 2], [5, 4]]}


def test_an_unknown_label_is_told_the_closest():
    with pytest.raises(ConfigError, match="did you mean 'ridge'"):
        apply_overrides(data(), ["attacks.rigde.penalty=2"])


@pytest.mark.parametrize(
    ("task", "moved"),
    [
        ({"name": "gqa", "path": "data", "model": "llava"}, {"path", "model"}),
        ({"name": "scienceqa", "path": "data", "model": "llava"}, {"path", "model"}),
        ({"name": "imagefolder", "path": "data", "model": "llava", "library": "transformers"}, {"path", "model"}),
        ({"name": "imagefolder", "path": "data", "model": "llava"}, {"path"}),  # of timm, a name
    ],
)
def test_folders_of_data_and_models_lie_beside_the_suite(tmp_path, monkeypatch, task, moved):
    suites, here = tmp_path / "suites", tmp_path / "here"
    for folder in (suites / "data", suites / "llava", here):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    text = write_yaml({"name": "mine", "task": task, "operating_points": [{"name": "a"}], "attacks": ["ridge"]})
    (suites / "mine.yaml").write_text(text)
    options = load_suite("../suites/mine.yaml").task.options
    assert {key for key, value in options.items() if value == f"../suites/{task[key]}"} == moved
    assert all(value == task[key] for key, value in options.items() if key not in moved)


def test_files_are_found_from_here_first_then_beside_the_suite(tmp_path, monkeypatch):
    suites, here = tmp_path / "suites", tmp_path / "here"
    for folder in (suites / "both", suites / "beside", here / "both"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)

    def path_of(path: str) -> str:
        task = {"name": "imagefolder", "path": path, "model": "beside"}
        text = write_yaml({"name": "mine", "task": task, "operating_points": [{"name": "a"}], "attacks": ["ridge"]})
        (suites / "mine.yaml").write_text(text)
        options = load_suite("../suites/mine.yaml").task.options
        assert options["model"] == "beside"  # of timm, no file
        return options["path"]

    assert path_of("both") == "both"
    assert path_of("beside") == "../suites/beside"
    assert path_of("nowhere") == "nowhere"
    assert path_of(str(suites / "beside")) == str(suites / "beside")
