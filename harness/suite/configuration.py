"""Configuration in YAML, from a file or shipped with a package: suites and search spaces."""

from __future__ import annotations

import os
import re
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Literal

from leakgauge.harness.errors import ConfigError, LeakgaugeError, StoreError, suggest
from leakgauge.harness.suite.registry import label_of, load, plugins, written_out
from leakgauge.harness.suite.text_source import TextSource
from leakgauge.harness.system.files.bounded_file import read_text
from leakgauge.harness.system.files.yaml_text import MAX_CHARACTERS, read_yaml
from leakgauge.harness.system.json_data import item_of, set_item
from leakgauge.harness.system.plain_text import is_plain, quoted

Kind = Literal["suite", "space"]
_LINE = re.compile(r" in line (\d+), column \d+$")


def shipped(group: str) -> dict[str, str]:
    """Returns the YAML texts that installed packages ship in an entry point group, by name, without broken ones."""
    texts: dict[str, str] = {}
    for entry in plugins(group):
        try:
            package = load(group, entry)
            if not isinstance(package, str | ModuleType):
                continue
            found = {
                item.name.rsplit(".", 1)[0]: item.read_text(encoding="utf-8")
                for item in files(package).iterdir()
                if item.name.endswith((".yaml", ".yml"))
            }
        except (LeakgaugeError, OSError, UnicodeDecodeError, TypeError):
            continue
        texts |= found
    return texts


def description_of(text: str) -> str:
    """Returns what a shipped YAML text says of itself, or why it cannot be read."""
    try:
        read = read_yaml(text)
    except LeakgaugeError as error:
        return f"cannot be read: {error.what}"
    return str(read.get("description", "")) if isinstance(read, dict) else "cannot be read: it holds no keys"


def apply_overrides(data: dict[str, object], overrides: list[str]) -> dict[str, object]:
    """Applies ``key.path=value`` overrides (values in YAML; list items by number or label) to configuration."""
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key or not is_plain(key, keep=""):
            raise ConfigError(
                f"{quoted(text)} is not of the form key=value", where="--set", hint="write --set seeds=[1]"
            )
        try:
            _set(data, key, read_yaml(value))
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            raise ConfigError(f"cannot set {quoted(key)}: {error}", where="--set", hint="check the path") from error
    return data


def _set(node: object, path: str, value: object) -> None:
    """Sets what a dotted path leads to; keys on the way that are not there are made."""
    while True:
        key, rest = _step(node, path)
        if rest is None:
            set_item(node, key, value)
            return
        if isinstance(node, dict):
            node, path = node.setdefault(key, {}), rest
            continue
        item = item_of(node, key)
        if isinstance(item, str):  # a plug-in by its bare name, which is given an option
            item = written_out(item)
            set_item(node, key, item)
        node = item
        plugin = node.get("plugin") if isinstance(node, dict) else None
        if isinstance(plugin, dict) and rest.partition(".")[0] not in {"label", "plugin"}:
            node = plugin
        path = rest


def _step(node: object, path: str) -> tuple[str | int, str | None]:
    """Returns the first key of a path, of a list the number that it or a label stands for, and the rest of the path."""
    first, dot, rest = path.partition(".")
    after = rest if dot else None
    if not isinstance(node, list):
        return first, after
    try:
        return int(first), after
    except ValueError:
        pass
    labels = [label_of(item) for item in node]
    # Labels may hold dots.
    fitting = [label for label in labels if label and f"{path}.".startswith(f"{label}.")]
    if not fitting:
        raise ValueError(f"no {quoted(first)} there, {suggest(first, [label for label in labels if label])}")
    label = max(fitting, key=len)
    return labels.index(label), path[len(label) + 1 :] if len(path) > len(label) else None


def read_mapping(path: Path, noun: str) -> dict[str, object]:
    """Reads a YAML file that holds a mapping, or nothing.

    Args:
        path: The file.
        noun: What it is: ``suite``, ``limits``.

    Raises:
        ConfigError: It cannot be read, is not YAML, or is no mapping of names.
    """
    return read_file(path, noun)[1]


def read_file(path: Path, noun: str) -> tuple[str, dict[str, object]]:
    """Reads a YAML file as ``read_mapping`` does; returns its text as well, which knows the lines."""
    text = _text_of(path, noun)
    return text, _mapping(text, noun, str(path))


def _text_of(path: Path, noun: str) -> str:
    try:
        # A character has four bytes at most.
        return read_text(path, 4 * MAX_CHARACTERS, hint="check the path")
    except StoreError as error:
        raise ConfigError(f"{error.what} ({noun})", where=error.where, hint=error.hint) from error


def _mapping(text: str, noun: str, where: str) -> dict[str, object]:
    try:
        data = read_yaml(text)
    except ValueError as error:
        line = _LINE.search(str(error))
        place = f"{where}:{line[1]}" if line else where
        raise ConfigError(f"not valid YAML: {error}", where=place, hint="mend the syntax at that line") from error
    if data is not None and not (isinstance(data, dict) and all(isinstance(key, str) for key in data)):
        raise ConfigError(
            f"{noun} must be a mapping of keys to values", where=where, hint="write name: ..., task: ..., say"
        )
    return data or {}


def read_configuration(reference: str, kind: Kind, overrides: list[str] | None = None) -> dict[str, object]:
    """Reads a mapping from a path or by the name of a shipped one, and applies overrides.

    Args:
        reference: The path or name.
        kind: What it describes; shipped ones are found in the entry point group named after it.
        overrides: ``key.path=value``, values in YAML.

    Raises:
        ConfigError: It is not there, is not YAML, or is no mapping.
    """
    return dict(read_source(reference, kind, overrides).data)


def read_source(reference: str, kind: Kind, overrides: list[str] | None = None) -> TextSource:
    """Reads what ``read_configuration`` does, together with where in its text everything stands."""
    path = Path(reference)
    # os.path, whose answer for a loop of links or a NUL is no.
    if path.suffix in {".yaml", ".yml"} or os.path.isfile(path):  # noqa: PTH113
        text = _text_of(path, f"a {kind}")
        stated = _mapping(text, f"a {kind}", str(path))
    else:
        texts = shipped(f"{kind}s")
        if reference not in texts:
            raise ConfigError(f"no {kind} named {quoted(reference)}", hint=suggest(reference, list(texts)))
        text = texts[reference]
        stated = _mapping(text, f"a {kind}", reference)
    if not stated:
        raise ConfigError(f"a {kind} must be a mapping of keys to values", where=reference, hint="it is empty")
    return TextSource.of(reference, text, stated, apply_overrides(deepcopy(stated), overrides or []))
