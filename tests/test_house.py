"""The plan of the house: rooms above all that they import, no circle, small folders, one word one meaning."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("harness", "defenses", "attacks", "benchmarks", "reports")
FLOORS = (
    ("system", "errors"),
    ("values",),
    ("contracts",),
    ("suite",),
    ("scoring",),
    ("store",),
    ("measurement",),
    ("run",),
    ("search",),
    ("cli",),
)
"""Rooms of ``harness`` from the ground; each may import what is below it and beside it."""
MOST_ENTRIES = 12
MAY_BE_LONGER = {"attacks", "attacks/networks", "defenses/reductions"}
LEAST_LINES = 40
MOST_CONCEPTS = {"attack": 4, "reduction": 3, "channel": 3, "codec": 4, "task": 4, "metric": 3, "defense": 4}
"""What the author of a plug-in has to know of ours, at most, by the package that its guide shows."""
STANDS_APART = {
    "leakgauge.harness.search.known_samplers": "names for `list`, which must not import what builds samplers",
}
"""Small modules that one other imports, and why they are apart."""
PLUGIN_GROUPS = ("tasks", "defenses", "channels", "reductions", "codecs", "perturbations", "attacks")
SAYS_OTHERWISE = {
    "contracts.declarations": ({"none"}, "access to the victim"),
    "errors": ({"none"}, "the word, where nothing is known"),
    "measurement.attacker_view": ({"none"}, "access to the victim"),
    "measurement.auxiliary": ({"none"}, "the word, where a task offers no images"),
    "run.preview.reading_table": ({"none"}, "the word, where nothing was counted"),
    "scoring.reconstruction": ({"none"}, "how torchmetrics is told to average nothing"),
    "store.number_type": ({"none", "float32", "bfloat16"}, "the word, and number types of torch"),
    "suite.planning": ({"none"}, "access to the victim"),
    "suite.schema": ({"none"}, "access to the victim"),
}
"""Modules of ``harness`` with texts that happen to be the name of a plug-in, and what they mean there."""
RESERVED = {
    "mend": "hint",
    "doubt": "caveat",
    "lessons": "training_data",
    "twin": "branch",
    "stand": "placeholder",
    "recall": "cached",
    "attempt": "attack_run",
}
"""Words that no parameter, function or class bears, and the one that says the same."""


def modules() -> dict[str, Path]:
    found = {}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(("leakgauge", *parts)).removesuffix(".__init__")] = path
    return found | {f"leakgauge.{path.stem}": path for path in (ROOT / "leakgauge").glob("*.py")}


MODULES = modules()


def imports(path: Path) -> set[str]:
    """All of a module's imports of ours, those within functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(MODULES)


GRAPH = {name: imports(path) - {name} for name, path in MODULES.items()}


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Names on a circle: what is left when all that imports nothing, or is imported by nothing, is taken away."""
    left = {name: set(below) for name, below in graph.items()}
    while True:
        imported = set().union(*left.values()) if left else set()
        ends = {name for name, below in left.items() if not below or name not in imported}
        if not ends:
            return sorted(left)
        left = {name: below - ends for name, below in left.items() if name not in ends}


def floor(module: str) -> int:
    room = module.split(".")[2]
    return next(height for height, rooms in enumerate(FLOORS) if room in rooms)


def test_no_import_runs_in_a_circle():
    assert circles(GRAPH) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"], "it finds them"


def test_no_import_runs_upwards():
    inside = {name: below for name, below in GRAPH.items() if name.startswith("leakgauge.harness.")}
    upwards = [
        f"{name} -> {other}"
        for name, below in inside.items()
        for other in below
        if other.startswith("leakgauge.harness.") and floor(other) > floor(name)
    ]
    assert upwards == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_fits_on_a_screen(folder):
    for path in [ROOT / folder, *(p for p in (ROOT / folder).rglob("*") if p.is_dir())]:
        if path.name == "__pycache__" or not list(path.glob("*.py")):
            continue
        entries = [p.name for p in path.iterdir() if p.name not in {"__init__.py", "__pycache__"}]
        if str(path.relative_to(ROOT)) not in MAY_BE_LONGER:
            assert len(entries) <= MOST_ENTRIES, (path, sorted(entries))


def test_no_small_module_serves_one_other_alone():
    users: dict[str, set[str]] = {}
    for name, below in GRAPH.items():
        for other in below:
            users.setdefault(other, set()).add(name)
    points = {point.value.partition(":")[0] for point in distribution("leakgauge").entry_points}
    small = {
        name
        for name, path in MODULES.items()
        if path.name not in {"__init__.py", "__main__.py"}
        and name not in points
        and len(users.get(name, ())) <= 1
        and len(path.read_text(encoding="utf-8").splitlines()) < LEAST_LINES
    }
    assert small == set(STANDS_APART)


def named(tree: ast.Module) -> set[str]:
    """Names of parameters, functions and classes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_one_word_has_one_meaning(folder):
    for path in (ROOT / folder).rglob("*.py"):
        words = {word.strip("_").lower() for word in named(ast.parse(path.read_text(encoding="utf-8")))}
        assert not words & set(RESERVED), path


def test_one_public_class_has_one_name():
    homes: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(name)
    twice = {name: places for name, places in homes.items() if len(places) > 1}
    assert twice == {}


def written_out(tree: ast.Module) -> list[int]:
    """Lines that make ``{"name": x}`` of a text x, which is for one function to do."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.IfExp)
        and isinstance(node.test, ast.Call)
        and ast.unparse(node.test.func) == "isinstance"
        and any(
            isinstance(one, ast.Dict) and ast.unparse(one).startswith("{'name':") for one in (node.body, node.orelse)
        )
    ]


def test_a_plugin_with_its_options_is_parsed_in_one_place():
    places = [name for name, path in MODULES.items() if written_out(ast.parse(path.read_text(encoding="utf-8")))]
    assert places == ["leakgauge.harness.suite.registry"]


def stated_names(path: Path) -> set[str]:
    """String constants of a module that are the name of a plug-in."""
    texts = {
        node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)
    }
    groups = {f"leakgauge.{group}" for group in PLUGIN_GROUPS}
    return texts & {point.name for point in distribution("leakgauge").entry_points if point.group in groups}


def test_harness_names_no_plugin():
    found = {name: stated for name, path in MODULES.items() if ".harness." in name and (stated := stated_names(path))}
    assert found == {f"leakgauge.harness.{module}": set(stated) for module, (stated, _) in SAYS_OTHERWISE.items()}


@pytest.fixture
def walks():
    sys.path.insert(0, str(ROOT / "tests" / "house"))
    try:
        import walks as found
    finally:
        sys.path.pop(0)
    return found


def test_a_walk_follows_a_value_and_what_is_made_of_it(walks, tmp_path):
    for room in walks.ROOMS:
        (tmp_path / room).mkdir()
    (tmp_path / "harness" / "first.py").write_text(
        "from leakgauge.harness.second import f, g, h, k, say, Wrong, Left\n"
        "def start(x, other, left: Left):\n"
        "    y = f(x)\n"
        "    h(other)\n"
        "    left.open(y)\n"
        "    if y:\n"
        "        said = say(y)\n"
        "        raise Wrong(said)\n"
        "    other.submit(k, y)\n"
        "    return [g(one) for one in y]\n"
    )
    (tmp_path / "harness" / "second.py").write_text(
        "class Wrong(Exception):\n    def __init__(self, x): self.x = x\n"
        'class Left:\n    def open(self, x):\n        """Whoever derives says how."""\n'
        "def f(x): return g(x)\ndef g(x): return x\ndef h(x): return x\ndef k(x): return x\ndef say(x): return x\n"
    )
    house = walks.House(tmp_path)
    files, again, deepest = house.walk(("leakgauge.harness.first", "start"), "x")
    assert files == ["leakgauge.harness.first", "leakgauge.harness.second"]
    assert dict(again) == {"leakgauge.harness.second": 1}, (
        "k: g was read from f; h gets another value; Wrong is raised, say only makes it; Left leaves open what runs"
    )
    assert deepest == 3


def test_the_walks_are_counted(walks):
    house = walks.House(ROOT)
    for room, function, parameter in walks.JOBS.values():
        start = next((m, function) for m, f in house.files.items() if room in m and function in f.functions)
        files, again, deepest = house.walk(start, parameter)
        assert len(files) > 10
        assert again.total() > 10
        assert 5 < deepest < 40
    plugins = ROOT / "examples" / "plugins"
    counted = {package: walks.concepts(house, plugins / package)[1] for package in MOST_CONCEPTS}
    assert {"SimpleDefense", "edge", "server"} == counted["defense"]
    assert {name: len(found) for name, found in counted.items() if len(found) > MOST_CONCEPTS[name]} == {}
    assert not re.search(r"import leakgauge", (ROOT / "tests" / "house" / "walks.py").read_text(encoding="utf-8"))
