"""JSON Schema of suites and search spaces as users write them, with the plug-ins installed here and their options.

pydantic's own schema states what a suite becomes; what may be written is more: a name stands for a plug-in with its
defaults, and its options stand beside the name.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter

from leakgauge.harness.cli.docstrings import meanings_of
from leakgauge.harness.errors import PluginError
from leakgauge.harness.options import NestedPlugin, Option, signature_of
from leakgauge.harness.plain_text import plain
from leakgauge.harness.registry import load, plugins
from leakgauge.harness.suite_options import SUPPLIED

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_GROUP_OF = {
    "task": "tasks",
    "defense": "defenses",
    "channel": "channels",
    "channels": "channels",
    "attack": "attacks",
    "attacks": "attacks",
    "floors": "attacks",
    "metrics": "metrics",
    "judge": "judges",
    "codec": "codecs",
    "reduction": "reductions",
}
"""The group that a key's plug-ins are of."""
_LABEL = {"type": "string", "description": "What it is called in tables; its name, if nothing is said."}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the JSON Schema of what may be written for a model, ``Suite`` or ``Space``.

    Imports every plug-in that is installed; one that cannot be imported is left to whoever runs the suite.
    """
    stated = model.model_json_schema()
    schema = _placed(stated, "")
    groups = sorted(set(_GROUP_OF.values()) | {"perturbations"})
    known: dict[str, Any] = {group: _plugins(group, labelled=False) for group in groups}
    known |= {f"labelled {group}": _plugins(group, labelled=True) for group in groups}
    if "OperatingPoint" in schema["$defs"]:
        schema["$defs"]["OperatingPoint"] |= _operating_point(schema["$defs"]["OperatingPoint"])
    for replaced in ("PluginConfig", "NamedPlugin"):
        schema["$defs"].pop(replaced, None)
    schema["$defs"] |= known
    return {"$schema": DIALECT, **schema}


def _placed(node: Any, group: str) -> Any:
    """Returns a part of pydantic's schema in which plug-ins are written as users write them."""
    if isinstance(node, list):
        return [_placed(one, group) for one in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref", "")
    if reference.endswith(("/PluginConfig", "/NamedPlugin")) and group:
        labelled = "labelled " if reference.endswith("/NamedPlugin") else ""
        said = {key: node[key] for key in ("description",) if key in node}
        return {"$ref": f"#/$defs/{labelled}{group}", **said}
    found = {}
    for key, value in node.items():
        if key == "properties":
            found[key] = {name: _placed(one, _GROUP_OF.get(name, "")) for name, one in value.items()}
        else:
            found[key] = _placed(value, group)
    return found


def _options(group: str, name: str) -> dict[str, dict[str, Any]] | None:
    """Returns the schemas of a plug-in's options by name; None where it cannot be imported."""
    try:
        plugin = load(group, name)
    except PluginError:
        return None
    meanings = meanings_of(plugin)
    options = [o for o in signature_of(plugin).options.values() if group != "defenses" or o.name not in SUPPLIED]
    return {option.name: _property(option, meanings.get(option.name, "")) for option in options}


def _required(group: str, name: str) -> list[str]:
    options = signature_of(load(group, name)).options.values()
    return [o.name for o in options if o.required and (group != "defenses" or o.name not in SUPPLIED)]


def _property(option: Option, meaning: str) -> dict[str, Any]:
    stated = _schema_of_hint(option.hint) if option.checked else {}
    return {**stated, "description": plain(meaning)} if meaning else stated


def _plugins(group: str, *, labelled: bool) -> dict[str, Any]:
    """Returns what may be written where a plug-in of a group is meant: a name, or a name with options."""
    names = sorted(plugins(group))
    label = {"label": _LABEL} if labelled else {}
    cases = []
    for name in names:
        options = _options(group, name)
        if options is not None:
            then = {
                "properties": {"name": {}, **label, **options},
                "required": ["name", *_required(group, name)],
                "additionalProperties": False,
            }
            cases.append({"if": {"properties": {"name": {"const": name}}}, "then": then})
    with_options = {"type": "object", "properties": {"name": {"enum": names}, **label}, "required": ["name"]}
    return {"anyOf": [{"enum": names}, {**with_options, "allOf": cases}]}


def _operating_point(stated: dict[str, Any]) -> dict[str, Any]:
    """Returns an operating point's keys: its name, and the options of any defense."""
    options: dict[str, Any] = {}
    for name in sorted(plugins("defenses")):
        options |= _options("defenses", name) or {}
    return {"properties": {**options, **stated["properties"]}, "additionalProperties": False}


def _schema_of_hint(hint: Any) -> dict[str, Any]:
    """Returns the schema of an option by its annotation; one that allows anything where it cannot be told."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        for about in arguments[1:]:
            if isinstance(about, NestedPlugin):
                return {"anyOf": [{"$ref": f"#/$defs/{about.group}"}, {"type": "null"}]}
    elif arguments and any(get_origin(one) is Annotated and _nests(one) for one in arguments):
        nested = next(one for one in arguments if get_origin(one) is Annotated and _nests(one))
        inner = _schema_of_hint(nested)
        return {"anyOf": [inner, {"type": "array", "items": inner}]}
    try:
        found = TypeAdapter(hint).json_schema()
    except Exception:  # pydantic raises many kinds for annotations that it cannot state
        return {}
    return {} if "$defs" in found else found


def _nests(hint: Any) -> bool:
    return any(isinstance(about, NestedPlugin) for about in get_args(hint)[1:])
