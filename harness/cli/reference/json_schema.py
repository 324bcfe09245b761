"""JSON Schema of suites and search spaces, with the installed plug-ins and their options, for editors and checks.

What pydantic says of the models lacks two things: that a plug-in may be a bare name, and what each plug-in takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

from pydantic import BaseModel

from leakgauge.harness.cli.reference.docstrings import body_of, meanings_of
from leakgauge.harness.errors import LeakgaugeError
from leakgauge.harness.run.suite_options import SUPPLIED
from leakgauge.harness.search.space import Space
from leakgauge.harness.suite.annotations import parts_of
from leakgauge.harness.suite.options import NestedPlugin, Option, adapter_of, signature_of
from leakgauge.harness.suite.registry import load, plugins
from leakgauge.harness.suite.schema import Suite
from leakgauge.harness.system.json_data import is_plain_data
from leakgauge.harness.system.plain_text import plain

Schema = dict[str, Any]
Names = Callable[[str], list[str]]
"""Names of the plug-ins of a group."""
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MODELS: dict[str, type[BaseModel]] = {"suite": Suite, "space": Space}
_GROUPS = ("tasks", "defenses", "reductions", "perturbations", "codecs", "channels", "attacks", "metrics", "judges")
# Which group the plug-ins of a key belong to, wherever the key stands.
_KEYS = {
    "task": "tasks",
    "defense": "defenses",
    "channel": "channels",
    "channels": "channels",
    "codec": "codecs",
    "attack": "attacks",
    "attacks": "attacks",
    "floors": "attacks",
    "metrics": "metrics",
    "judge": "judges",
}


def schema_of(kind: Literal["suite", "space"], names: Names | None = None) -> Schema:
    """Returns the JSON Schema (draft 2020-12) of suites or search spaces.

    It accepts all that ``leakgauge validate`` accepts, and refuses unknown keys, plug-ins and options and values that
    an option does not allow; what several keys must be together, it does not see.

    Args:
        kind: ``suite`` or ``space``.
        names: Returns the plug-ins of a group that may be named; None: all that are installed.
    """
    names = names or (lambda group: sorted(plugins(group)))
    model = _MODELS[kind]
    schema = model.model_json_schema()
    definitions: Schema = schema.setdefault("$defs", {})
    for part in (schema, *definitions.values()):
        for key, value in part.get("properties", {}).items():
            if key in _KEYS:
                part["properties"][key] = _placed(value, _KEYS[key])
    for unused in ("PluginConfig", "NamedPlugin"):
        definitions.pop(unused, None)
    definitions["OperatingPoint"] = _operating_point(definitions["OperatingPoint"], names)
    for group in _GROUPS:
        definitions[group] = _plugin(group, names(group), named=False)
        definitions[f"{group}.labelled"] = _plugin(group, names(group), named=True)
    return {"$schema": _DIALECT, "title": f"leakgauge {kind}", **{k: v for k, v in schema.items() if k != "title"}}


def _placed(schema: Any, group: str) -> Any:
    """Returns a schema whose references to plug-ins are to those of a group."""
    if isinstance(schema, list):
        return [_placed(item, group) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _placed(value, group) for key, value in schema.items()}
    if found.get("$ref") == "#/$defs/PluginConfig":
        found["$ref"] = f"#/$defs/{group}"
    elif found.get("$ref") == "#/$defs/NamedPlugin":
        found["$ref"] = f"#/$defs/{group}.labelled"
    return found


def _plugin(group: str, names: list[str], *, named: bool) -> Schema:
    """Returns the schema of a plug-in: its name, or a mapping of its name and options, with a label where asked."""
    beside: Schema = {"label": {"type": "string", "description": "What tables call it."}} if named else {}
    told = {name: _options(group, name) for name in names}
    mapping: Schema = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"enum": names}, **beside},
        "allOf": [
            {
                "if": {"properties": {"name": {"const": name}}, "required": ["name"]},
                "then": {**rest, "properties": {"name": {"description": does}, **beside, **rest["properties"]}},
            }
            for name, (does, rest) in told.items()
        ],
    }
    forms: list[Schema] = [{"enum": names}, mapping]
    if named:
        apart = {"label": beside["label"], "plugin": {"allOf": [{"type": "object"}, {"$ref": f"#/$defs/{group}"}]}}
        forms[1:] = [
            {
                "type": "object",
                "if": {"required": ["plugin"]},
                "then": {"properties": apart, "required": ["label"], "additionalProperties": False},
                "else": mapping,
            }
        ]
    return {"anyOf": forms}


@functools.lru_cache(maxsize=256)
def _options(group: str, name: str) -> tuple[str, Schema]:
    """Returns what a plug-in does, and the schema of its options; of one that cannot be imported, nothing."""
    try:
        plugin = load(group, name)
        signature, meanings = signature_of(plugin), meanings_of(plugin)
    except LeakgaugeError:
        return "", {"properties": {}}
    added = (*SUPPLIED, "channel") if group == "defenses" else ()
    known = {key: option for key, option in signature.options.items() if key not in added}
    schema: Schema = {
        "properties": {
            key: {"description": plain(meanings.get(key, "")), **_option(option)} for key, option in known.items()
        }
    }
    # Options of a defense may also stand at the operating points alone.
    required = [key for key, option in known.items() if option.required and key in signature.own]
    if required and group != "defenses":
        schema["required"] = required
    if not signature.open_ended:
        schema["additionalProperties"] = False
    return plain(body_of(plugin).split("\n\n")[0]), schema


def _option(option: Option) -> Schema:
    groups = sorted(set(_nested(option.annotation)))
    if groups:
        one = [{"$ref": f"#/$defs/{group}"} for group in groups]
        return {"anyOf": [*one, {"type": "array", "items": {"anyOf": one}}, {"type": "null"}]}
    adapter = adapter_of(option.annotation)
    try:
        said = {} if adapter is None else adapter.json_schema()
    except Exception:  # a type that JSON cannot say
        said = {}
    if "$defs" in said:  # whose references would lead nowhere from here
        said = {}
    if option.required or not is_plain_data(option.default):
        return said
    # A default is allowed whatever its annotation says.
    return {"anyOf": [said, {"const": option.default}], "default": option.default} if said else {}


def _nested(annotation: Any) -> Iterator[str]:
    inner, metadata = parts_of(annotation)
    yield from (mark.group for mark in metadata if isinstance(mark, NestedPlugin))
    for part in get_args(inner):
        yield from _nested(part)


def _operating_point(schema: Schema, names: Names) -> Schema:
    """Adds the options of all defenses, for which of them a point configures stands elsewhere."""
    found: dict[str, list[Schema]] = {}
    for name in names("defenses"):
        for key, option in _options("defenses", name)[1]["properties"].items():
            if key != "name" and option not in found.setdefault(key, []):
                found[key].append(option)
    options = {key: forms[0] if len(forms) == 1 else {"anyOf": forms} for key, forms in found.items()}
    # Whatever one of them takes unseen, a point may say; else what is unknown is a typing error.
    open_ = any(_options("defenses", name)[1].get("additionalProperties", True) for name in names("defenses"))
    return {**schema, "properties": {**options, **schema["properties"]}, "additionalProperties": open_}
