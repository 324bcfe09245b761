"""Holds the documentation against the code: links lead somewhere, commands and options exist, imports can be made.

README, the folders' READMEs, docs/ and what docs/generate.py writes at build time. ``mkdocs build --strict`` (``make
docs``) checks links, anchors and navigation once more, and references within docstrings; it takes twice as long and
needs more packages.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from leakgauge.harness.cli.commands import command
from leakgauge.harness.errors import LeakgaugeError
from leakgauge.harness.suite.configuration import shipped
from leakgauge.harness.suite.registry import plugins
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.system.files.yaml_text import read_yaml

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(#[^)\s]*)?\)")
HEADING = re.compile(r"^#{1,6} (.*?)(?: \{ #([\w-]+) \})?$", re.MULTILINE)
FENCE = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
SNIPPET = re.compile(r'^ *--8<-- "([^"]+)"$', re.MULTILINE)
SIZES = {
    "README.md": 7_000,
    "docs/start/five-minutes.md": 40_000,
    "*.md": 16_000,
    "*.ipynb": 300_000,
    "*.png": 500_000,
    "*.svg": 500_000,
}
"""Bytes that a file may have, by the first pattern that fits: a reader on a phone loads them."""
BEFORE = ("--version", "--debug", "--install-completion", "--show-completion", "--help")


def generator() -> Any:
    """Returns docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dead_links(where: str, text: str, path: Path, made: Mapping[Path, str]) -> list[str]:
    """Returns relative links that lead nowhere, to no file, no generated page or no heading."""
    found = []
    for target, anchor in LINK.findall(FENCE.sub("", text)):
        place = (path.parent / target).resolve() if target else path.resolve()
        if not place.exists() and place not in made:
            found.append(f"{where}: dead link {target}")
        elif anchor and place.suffix == ".md":
            page = text if not target else made[place] if place in made else place.read_text(encoding="utf-8")
            if not _has_anchor(page, anchor[1:]):
                found.append(f"{where}: {target or 'the page'} has no heading {anchor}")
    return found


def _has_anchor(page: str, anchor: str) -> bool:
    """Tells whether a page has an anchor: a heading's own or of its words, or a Python object that is documented."""
    headings = [own or slugify(text) for text, own in HEADING.findall(FENCE.sub("", page))]
    objects = re.findall(r"^::: (\S+)$", page, re.MULTILINE)
    return anchor in headings or any(anchor == name or anchor.startswith(f"{name}.") for name in objects)


def slugify(text: str) -> str:
    """Returns the anchor that a heading gets, as Python-Markdown makes it."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def nav_problems(pages: set[str]) -> list[str]:
    """Returns pages that mkdocs.yml does not name in its navigation, and names of pages that there are not."""

    def named(entry: Any) -> Iterator[str]:
        for one in entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else [entry]:
            yield from [one] if isinstance(one, str) else named(one)

    listed = set(named(read_yaml((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    missing, unknown = sorted(pages - listed), sorted(listed - pages)
    return [f"mkdocs.yml: {page} is not in `nav`" for page in missing] + [
        f"mkdocs.yml: no page {page}" for page in unknown
    ]


def _lines(language: str, block: str) -> Iterator[list[str]]:
    """Yields the words of each command of a shell block; in a console session commands start with ``$``."""
    for line in block.replace("\\\n", " ").splitlines():
        if language == "console" and not line.startswith("$ "):
            continue
        yield shlex.split(line.removeprefix("$ "), comments=True)


def bad_commands(where: str, language: str, block: str) -> list[str]:
    """Returns `leakgauge` and `make` commands of a shell block that do not exist, or whose options do not."""
    found = []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in _lines(language, block):
        if words[:1] and Path(words[0]).name == "leakgauge" and words[1] not in BEFORE:
            found += [f"{where}: {problem}" for problem in _bad_call(words[1:])]
        if words[:1] == ["make"] and not re.search(rf"^{re.escape(words[1])}:", makefile, re.MULTILINE):
            found.append(f"{where}: no target `make {words[1]}`")
        if words[:2] == ["python", "-m"] and importlib.util.find_spec(words[2]) is None:
            found.append(f"{where}: no module {words[2]}")
    return found


def _bad_call(words: list[str]) -> list[str]:
    name, rest = words[0], words[1:]
    if name not in plugins("commands"):
        return [] if name in _example_commands() else [f"no command `leakgauge {name}`"]
    known = {option for parameter in command(name).params for option in (*parameter.opts, *parameter.secondary_opts)}
    stated = [word.partition("=")[0] for word in rest if word.startswith("--")]
    found = [f"`leakgauge {name}` has no option {word}" for word in stated if word not in {*known, *BEFORE}]
    suite = [rest[0]] if name in {"run", "validate"} and rest and not rest[0].startswith("-") else []
    suite += [rest[place + 1] for place, word in enumerate(rest) if word == "--suite"]
    example = {path.stem for path in (ROOT / "examples").rglob("*.yaml")}
    return found + [f"no suite {one}" for one in suite if not _is_suite(one, example)]


def _is_suite(name: str, example: set[str]) -> bool:
    return name.endswith(".yaml") or name.isupper() or name in shipped("suites") or name in example


def _example_commands() -> set[str]:
    return {path.stem.removesuffix("_command") for path in (ROOT / "examples").rglob("*_command.py")}


def bad_imports(where: str, block: str) -> list[str]:
    """Returns what a Python block imports from this project, or takes from it, that is not there."""
    found = []
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "leakgauge":
            module = importlib.import_module(str(node.module))
            found += [f"{where}: no {node.module}.{a.name}" for a in node.names if not hasattr(module, a.name)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] == "leakgauge"]
            found += [f"{where}: no module {name}" for name in names if importlib.util.find_spec(name) is None]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "leakgauge":
            package = importlib.import_module("leakgauge")
            fixture = "def test_" in block  # there the name is that of the pytest fixture
            found += [] if fixture or node.attr in dir(package) else [f"{where}: no leakgauge.{node.attr}"]
    return found


def bad_blocks(where: str, text: str) -> list[str]:
    """Checks fenced blocks: shell commands, suites in YAML, Python that must compile, files that are shown."""
    found = [f"{where}: no file {path}" for path in SNIPPET.findall(text) if not (ROOT / path).is_file()]
    text = SNIPPET.sub(lambda shown: _shown(shown[1]), text)
    for indent, language, indented in FENCE.findall(text):
        block = "\n".join(line.removeprefix(indent) for line in indented.split("\n"))
        try:
            if language in {"sh", "bash", "console"}:
                found += bad_commands(where, language, block)
            elif language == "yaml":
                data = read_yaml(block)
                if isinstance(data, dict) and "operating_points" in data and "attacks" in data:
                    parse_suite(data, where=where)
            elif language == "python":
                found += bad_imports(where, block)
        except (LeakgaugeError, SyntaxError, ValueError, ImportError) as error:
            found.append(f"{where}: a block of {language}: {error}")
    return found


def _shown(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8").rstrip("\n") if (ROOT / path).is_file() else ""


def unregistered(where: str, text: str) -> list[str]:
    """Checks that the first column of the table of attacks names those that are registered."""
    if where != "attacks/README.md":
        return []
    names = {p.name for p in entry_points(group="leakgauge.attacks") if p.value.startswith("leakgauge.")}
    cells = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    said = set(re.findall(r"`(\w+)`", " ".join(cells)))
    return [f"{where}: {name} is not registered or not described" for name in said ^ names]


def too_large(path: Path) -> list[str]:
    """Says where a file has more bytes than its kind may."""
    where = path.relative_to(ROOT)
    most = next((size for pattern, size in SIZES.items() if where.match(pattern) or str(where) == pattern), None)
    if where.name == "README.md" and len(where.parts) > 1:
        most = SIZES["*.md"]
    size = path.stat().st_size
    return [f"{where}: {size} bytes, more than {most}"] if most is not None and size > most else []


def written() -> list[Path]:
    """Returns the files of the documentation that are written by hand, pictures and notebooks too."""
    found = {*ROOT.glob("*.md")}
    for folder in ("leakgauge", "harness", "defenses", "attacks", "benchmarks", "reports", "tests", "docs", "examples"):
        for kind in ("*.md", "*.ipynb", "*.png", "*.svg"):
            # Links of leakgauge/ lead to the other folders.
            found |= {path for path in (ROOT / folder).rglob(kind) if path.resolve() == path}
    return sorted(path for path in found if not {"build", "runs"} & {*path.relative_to(ROOT).parts})


def main() -> int:
    """Checks every page of the project; prints what is wrong."""
    made = generator().pages()
    generated = {(ROOT / "docs" / path).resolve(): text for path, text in made.items()}
    problems = []
    for path in written():
        problems += too_large(path)
        if path.suffix == ".md":
            where, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
            inside = generated if where.startswith("docs/") else {}
            problems += dead_links(where, text, path, inside) + bad_blocks(where, text) + unregistered(where, text)
    for place, text in made.items():
        if place.endswith(".md"):
            problems += dead_links(place, text, (ROOT / "docs" / place).resolve(), generated)
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    problems += nav_problems(pages | {place for place in made if place.endswith((".md", ".ipynb"))})
    print("\n".join(problems) or "documentation agrees with the code")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
