"""The list of planted faults: one-line changes that a named fast test must catch, in a YAML file an area."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        name: What is wrong, in words; unique.
        file: The file that it is planted in, from the top of the repository.
        old: Text that stands there exactly once.
        new: What takes its place.
        test: Node of the test that must fail, ``tests/a/test_b.py::test_c``, with the case in brackets or without.
        area: Name of the list that it stands in.
    """

    name: str
    file: str
    old: str
    new: str
    test: str
    area: str

    def planted(self, root: Path) -> str:
        """Returns the text of the file with the fault in it; raises ValueError where the list is stale."""
        path = root / self.file
        if not path.is_file():
            raise ValueError(f"{self.file} is not there")
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.old!r} stands {text.count(self.old)} times in {self.file}, not once")
        changed = text.replace(self.old, self.new)
        try:
            ast.parse(changed)
        except SyntaxError as error:
            raise ValueError(f"{self.file} is no Python with the fault: {error}") from error
        return changed

    def stale(self, root: Path) -> str:
        """Says why the fault cannot be planted, or its test not be named; empty where all is well."""
        try:
            self.planted(root)
        except ValueError as error:
            return str(error)
        file, _, function = self.test.partition("::")
        function = function.partition("[")[0]
        path = root / file
        if not path.is_file() or f"def {function}(" not in path.read_text(encoding="utf-8"):
            return f"there is no test {self.test}"
        return ""


def read_faults(folder: Path = FOLDER) -> list[Fault]:
    """Reads all lists.

    Raises:
        ValueError: A fault lacks something, or two have one name.
    """
    found = [fault for path in sorted(folder.glob("*.yaml")) for fault in _read(path)]
    names = [fault.name for fault in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"several faults are called {twice[0]!r}")
    return found


def _read(path: Path) -> Iterator[Fault]:
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        if set(entry) != {"name", "file", "old", "new", "test"}:
            raise ValueError(f"{path.name}: {entry.get('name')!r} needs name, file, old, new, test")
        texts = {key: str(value).removesuffix("\n") for key, value in entry.items()}
        yield Fault(**texts, area=path.stem)
