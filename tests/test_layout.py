"""The folders are the architecture: imports follow the one direction, files stay small, the core names no plug-in."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("harness", "defenses", "attacks", "benchmarks", "reports")
SOURCES = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))
DOOR = sorted((ROOT / "leakgauge").glob("*.py"))


def imported_folders(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("leakgauge.")} & set(FOLDERS)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_direction(path):
    folder = path.relative_to(ROOT).parts[0]
    allowed = {folder} if folder == "harness" else {folder, "harness"}
    assert imported_folders(path) <= allowed


@pytest.mark.parametrize("path", [*SOURCES, *DOOR], ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_small_and_named_for_a_noun(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 320
    assert path.stem not in {"utils", "helpers", "misc", "common"}


def test_the_core_names_no_attack():
    from importlib.metadata import entry_points

    names = {f'"{point.name}"' for point in entry_points(group="leakgauge.attacks")}
    for path in (p for p in SOURCES if p.relative_to(ROOT).parts[0] in {"harness", "reports"}):
        text = path.read_text(encoding="utf-8")
        assert not [name for name in names if name in text], path


@pytest.mark.parametrize("folder", [*FOLDERS, "leakgauge", "tests"])
def test_every_folder_says_what_lives_there(folder):
    assert (ROOT / folder / "README.md").is_file()


def test_no_two_files_of_tests_share_a_name():
    """Without packages under tests/, pytest imports them by name alone, and refuses the second."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
