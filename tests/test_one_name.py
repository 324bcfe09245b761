"""One package is installed, `leakgauge`; the folders of the repository are its subpackages: each file has one name."""

from __future__ import annotations

import ast
import pickle
import tomllib
from importlib import import_module
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import pytest
from setuptools import find_namespace_packages

ROOT = Path(__file__).parent.parent
FOLDERS = ("harness", "attacks", "defenses", "benchmarks", "reports")
SOURCES = sorted(p for folder in (*FOLDERS, "tests") for p in (ROOT / folder).rglob("*.py"))
DATA = {".yaml", ".safetensors", ".json", ".csv", ".j2", ".md", ".typed"}


@pytest.fixture(scope="module")
def settings() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def packages(settings) -> set[str]:
    """What a wheel holds, as setuptools finds it."""
    found = find_namespace_packages(str(ROOT), **settings["tool"]["setuptools"]["packages"]["find"])
    return {name for name in found if "__pycache__" not in name}


def test_one_top_level_package_is_found(packages):
    assert {name.partition(".")[0] for name in packages} == {"leakgauge"}


def test_every_folder_with_code_or_data_is_found(packages):
    tracked = {path.parent for path in SOURCES if "tests" not in path.relative_to(ROOT).parts}
    tracked |= {p.parent for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.suffix in DATA}
    wanted = {"leakgauge." + ".".join(path.relative_to(ROOT).parts) for path in tracked}
    assert wanted <= packages
    assert not [name for name in packages if ".leakgauge" in name]


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_link_is_relative_and_leads_to_its_folder(folder):
    link = ROOT / "leakgauge" / folder
    assert link.is_symlink(), "a copy of the folder: changes of the folder would not reach what is imported"
    assert link.readlink() == Path("..", folder)
    module = import_module(f"leakgauge.{folder}")
    assert Path(module.__file__).resolve() == ROOT / folder / "__init__.py"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_folder_is_imported_by_its_bare_name(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    assert not names & set(FOLDERS)


def test_every_entry_point_leads_into_the_package():
    points = list(distribution("leakgauge").entry_points)
    assert {"leakgauge.attacks", "leakgauge.suites", "pytest11", "console_scripts"} <= {point.group for point in points}
    assert not [point.value for point in points if not point.value.startswith("leakgauge.")]


def test_the_version_stands_in_one_place(settings):
    assert "version" not in settings["project"]
    assert import_module("leakgauge").__version__ == distribution("leakgauge").version


def test_data_is_found_through_the_package():
    assert (files("leakgauge.benchmarks.suites") / "smoke.yaml").is_file()
    assert (files("leakgauge.reports") / "templates" / "report.html.j2").is_file()
    assert (files("leakgauge") / "py.typed").is_file()


def test_classes_pickle_by_their_full_name():
    from leakgauge.attacks.ridge import Ridge

    assert Ridge.__module__ == "leakgauge.attacks.ridge"
    assert pickle.loads(pickle.dumps(Ridge)) is Ridge


def test_the_code_of_a_cell_names_its_folders(tmp_path):
    from leakgauge.harness.store.code_digest import code_of, forget

    code = code_of(["leakgauge.attacks"])
    assert {"leakgauge.attacks", "leakgauge.harness"} <= set(code)
    assert not {"leakgauge.reports", "harness", "attacks"} & set(code)
    assert code["leakgauge"] == distribution("leakgauge").version
    assert (
        len(
            {
                code["leakgauge.attacks"],
                code["leakgauge.harness"],
                code_of(["leakgauge.defenses"])["leakgauge.defenses"],
            }
        )
        == 3
    )
    forget()
