"""Holds the documentation against the code: links lead somewhere, commands exist, named plug-ins are registered."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import entry_points
from pathlib import Path

import typer

from leakgauge.harness.cli import app
from leakgauge.harness.suite import parse_suite, shipped_suites
from leakgauge.harness.yaml_text import read_yaml

ROOT = Path(__file__).parent.parent
COMMANDS = set(typer.main.get_command(app).list_commands(None))
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def dead_links(path: Path, text: str) -> list[str]:
    """Returns relative links that lead nowhere."""
    targets = [t for t in LINK.findall(text) if not t.startswith(("http://", "https://", "mailto:"))]
    return [f"{path.name}: dead link {t}" for t in targets if not (path.parent / t).exists()]


def bad_commands(path: Path, block: str) -> list[str]:
    """Returns `leakgauge` and `make` commands of a shell block that do not exist."""
    found = []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        words = words[1:] if words[:1] == ["$"] else words
        if words[:1] and Path(words[0]).name == "leakgauge" and words[1] not in COMMANDS:
            found.append(f"{path.name}: no command `leakgauge {words[1]}`")
        if words[:2] == ["leakgauge", "run"] and words[2] not in shipped_suites() and not words[2].endswith(".yaml"):
            found.append(f"{path.name}: no suite {words[2]}")
        if words[:1] == ["make"] and not re.search(rf"^{re.escape(words[1])}:", makefile, re.MULTILINE):
            found.append(f"{path.name}: no target `make {words[1]}`")
    return found


def bad_blocks(path: Path, text: str) -> list[str]:
    """Checks fenced blocks: shell commands, suites in YAML, Python that must compile."""
    found = []
    for language, block in FENCE.findall(text):
        if language in {"sh", "bash", "console"}:
            found += bad_commands(path, block)
        elif language == "yaml":
            data = read_yaml(block)
            if isinstance(data, dict) and "operating_points" in data:
                parse_suite(data, where=path.name)
        elif language == "python":
            compile(block, str(path), "exec")
    return found


def unregistered(path: Path, text: str) -> list[str]:
    """Checks that the first column of attack tables names registered attacks."""
    if path.parent.name != "attacks":
        return []
    names = {point.name for point in entry_points(group="leakgauge.attacks")}
    cells = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    said = set(re.findall(r"`(\w+)`", " ".join(cells)))
    return [f"attacks/README.md: {name} is not registered or not described" for name in said ^ names]


def main() -> int:
    """Checks every Markdown file of the project; prints what is wrong."""
    problems = []
    for path in [*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/**/*.md")]:
        if any(part in {"runs", "build"} for part in path.relative_to(ROOT).parts):
            continue
        text = path.read_text(encoding="utf-8")
        problems += dead_links(path, text) + bad_blocks(path, text) + unregistered(path, text)
    print("\n".join(problems) or "documentation agrees with the code")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
