"""Configuration in YAML, from a file or shipped with a package: suites and search spaces."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml

from harness.errors import ConfigError
from harness.registry import load, plugins, suggest

Kind = Literal["suite", "space"]


def shipped(group: str) -> dict[str, str]:
    """Returns the YAML texts that installed packages ship in an entry point group, by name."""
    texts: dict[str, str] = {}
    for entry in plugins(group):
        for item in files(load(group, entry)).iterdir():
            if item.name.endswith((".yaml", ".yml")):
                texts[item.name.rsplit(".", 1)[0]] = item.read_text(encoding="utf-8")
    return texts


def apply_overrides(data: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Applies ``key.path=value`` overrides (values in YAML; list items by number) to configuration."""
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ConfigError(f"{text!r} is not of the form key=value", where="--set", mend="write --set seeds=[1]")
        parts = key.split(".")
        node: Any = data
        try:
            for part in parts[:-1]:
                node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
            if isinstance(node, list):
                node[int(parts[-1])] = yaml.safe_load(value)
            else:
                node[parts[-1]] = yaml.safe_load(value)
        except (ValueError, IndexError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot set {key!r}: {error}", where="--set", mend="check the path") from error
    return data


def read_configuration(reference: str, kind: Kind, overrides: list[str] | None = None) -> dict[str, Any]:
    """Reads a mapping from a path or by the name of a shipped one, and applies overrides.

    Args:
        reference: The path or name.
        kind: What it describes; shipped ones are found in the entry point group named after it.
        overrides: ``key.path=value``, values in YAML.

    Raises:
        ConfigError: It is not there, is not YAML, or is no mapping.
    """
    path = Path(reference)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the {kind}: {error}", where=reference, mend="check the path") from error
    else:
        texts = shipped(f"{kind}s")
        if reference not in texts:
            raise ConfigError(f"no {kind} named {reference!r}", mend=suggest(reference, list(texts)))
        text = texts[reference]
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}", where=reference, mend="mend the syntax at that line") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"a {kind} must be a mapping of keys to values", where=reference, mend="write name: ..., task: ..."
        )
    return apply_overrides(data, overrides or [])
