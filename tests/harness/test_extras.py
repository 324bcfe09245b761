"""A plain install lacks libraries that a plain run does without; what needs one names the extra that brings it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.system.containment import contained
from leakgauge.harness.system.extras import EXTRAS, hint_of, missing_extra, require

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {"sionna": "sionna-no-rt"}
WITHOUT = f"""
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(EXTRAS)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_extras_bring_what_they_are_named_for_and_a_plain_install_does_not(project):
    plain = {Requirement(need).name for need in project["dependencies"]}
    for module, extra in EXTRAS.items():
        brought = {Requirement(need).name for need in project["optional-dependencies"][extra]}
        # sqlalchemy comes with Optuna.
        assert DISTRIBUTIONS.get(module, module) in brought or module == "sqlalchemy"
        assert not brought & plain
    [everything] = project["optional-dependencies"]["all"]
    assert Requirement(everything).extras == set(EXTRAS.values())
    assert "leakgauge[all]" in project["optional-dependencies"]["dev"], "what tests need is installed for them"


def test_the_extra_is_found_behind_whatever_was_raised():
    missing = ModuleNotFoundError("No module named 'optuna.study'", name="optuna.study")
    assert missing_extra(missing) == "search"
    told = ValueError("told otherwise")
    told.__cause__ = missing
    assert hint_of(told) == "pip install 'leakgauge[search]'"
    told.__cause__, told.__context__ = None, told
    assert hint_of(told) == "", "a circle of causes ends"
    assert hint_of(ModuleNotFoundError("x", name="optunas"), "reinstall") == "reinstall"
    assert hint_of(ImportError("no name at all")) == ""


def test_a_plug_in_that_imports_late_is_told_the_extra():
    with pytest.raises(PluginError, match=r"pip install 'leakgauge\[vqa\]'"), contained("fit", "attack 'a'"):
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")


def test_what_is_required_is_looked_for_and_not_imported(monkeypatch):
    require("sionna", "here")
    monkeypatch.setattr("leakgauge.harness.system.extras.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"here: sionna is not installed -- pip install 'leakgauge\[channels\]'"):
        require("sionna", "here")


def without(program: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WITHOUT + program]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=environment)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["search", "photos", "--out", "nowhere"], "search"),
        (["show", "defense", "vqa_pipeline"], "vqa"),
        (["validate", "vqa-quick"], "vqa"),
    ],
)
def test_a_command_that_lacks_a_library_names_the_extra_in_one_line(arguments, extra):
    program = f"sys.argv = ['leakgauge', *{arguments!r}]\nfrom leakgauge.harness.cli import main\nmain()"
    done = without(program)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"pip install 'leakgauge[{extra}]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_plain_run_and_its_front_door_need_none_of_them(tmp_path):
    program = f"""
import leakgauge
run = leakgauge.run(
    task="photos", points=["undefended"], attacks=["floor_mean", "ridge"], metrics=["psnr_db"], judge="victim",
    threat_models=[{{"name": "server", "auxiliary": {{"n": 32}}}}], evaluation_images=12, workers=1, device="cpu",
    defense={{"name": "split_pipeline", "cut": 1}}, out={str(tmp_path / "run")!r},
)
run.report({str(tmp_path / "report")!r})
assert not set(sys.modules) & set({sorted(EXTRAS)!r})
try:
    leakgauge.search("photos", out={str(tmp_path / "search")!r})
except leakgauge.LeakgaugeError as error:
    print(error)
"""
    done = without(program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "leakgauge.search: No module named 'moocore' -- pip install 'leakgauge[search]'" in done.stdout
    assert (tmp_path / "report" / "index.html").is_file()
