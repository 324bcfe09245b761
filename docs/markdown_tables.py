"""Markdown tables of plain rows and of pydantic models."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel


def cell(text: Any) -> str:
    """Writes a value into a cell of a Markdown table."""
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").replace("<", "&lt;").strip()


def table(headings: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """Returns a Markdown table."""
    lines = ["| " + " | ".join(headings) + " |", "| " + " | ".join("---" for _ in headings) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(map(cell, row)) + " |" for row in rows)])


def _kind_of(schema: dict[str, Any]) -> str:
    """Says in a few words what a JSON schema allows."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema or "const" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind_of(one) for one in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_kind_of(schema.get('items', {}))}"
    bounds = [
        f"{word} {schema[key]}"
        for key, word in (("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"))
        if key in schema
    ]
    return " ".join([str(schema.get("type", "anything")), *bounds])


def model_tables(model: type[BaseModel]) -> str:
    """Returns a section a model that a pydantic model holds, itself first."""
    whole = model.model_json_schema()
    blocks = []
    for name, schema in [(model.__name__, whole), *whole.get("$defs", {}).items()]:
        blocks += [f"## {name}", re.sub(r"\n\s*", " ", schema.get("description", ""))]
        required = schema.get("required", [])
        rows = [
            (
                f"`{key}`",
                _kind_of(one),
                "must be given" if key in required else f"`{json.dumps(one.get('default'))}`",
                one.get("description", ""),
            )
            for key, one in schema.get("properties", {}).items()
        ]
        if rows and any(row[3] for row in rows):
            blocks.append(table(("key", "is", "default", "means"), rows))
        elif rows:
            blocks.append(table(("key", "is", "default"), [row[:3] for row in rows]))
    return "\n\n".join(blocks)
