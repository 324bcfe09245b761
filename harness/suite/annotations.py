"""What an annotation allows, in words: for the one line that refuses an option, and for reference pages."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

_WORDS: dict[object, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    types.NoneType: ("null", "null"),
}
_UNIONS = (Union, types.UnionType)
_BOUNDS = ("ge", "gt", "le", "lt", "min_length", "max_length", "multiple_of")
Bounds: TypeAlias = dict[str, float]
"""Bounds of a value by pydantic's names: ``ge``, ``max_length``, ..."""


def bounds_of(metadata: Sequence[object]) -> Bounds:
    """Returns the bounds that metadata of ``Annotated`` states."""
    found: Bounds = {}
    for item in metadata:
        for part in item.metadata if isinstance(item, FieldInfo) else (item,):
            found |= {name: getattr(part, name) for name in _BOUNDS if getattr(part, name, None) is not None}
    return found


def parts_of(annotation: object) -> tuple[object, tuple[object, ...]]:
    """Splits ``Annotated`` into what is annotated and its metadata; other hints have none."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return inner, tuple(metadata)
    return annotation, ()


def choices_of(annotation: object) -> list[str]:
    """Returns the texts that a hint takes by name, for a suggestion; empty where there are none."""
    inner, _ = parts_of(annotation)
    if get_origin(inner) is Literal:
        return [value for value in get_args(inner) if isinstance(value, str)]
    if get_origin(inner) in _UNIONS:
        return [name for part in get_args(inner) for name in choices_of(part)]
    return []


def describe(annotation: object, *, plural: bool = False) -> str:
    """Says what a hint allows, ``a whole number of at least 1`` or ``one of keys, tokens``."""
    inner, metadata = parts_of(annotation)
    bounds, origin, arguments = bounds_of(metadata), get_origin(inner), get_args(inner)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else str(arguments[0])
    if origin in _UNIONS:
        return " or ".join(dict.fromkeys(describe(part, plural=plural) for part in arguments))
    if inner in (list, tuple, Sequence) or origin in (list, tuple, Sequence):
        return _list(origin, arguments, bounds, plural)
    if is_typeddict(inner) or inner in (dict, Mapping) or origin in (dict, Mapping):
        return _mapping(inner, plural)
    if inner in _WORDS:
        return _WORDS[inner][plural] + _limits(bounds, inner)
    return getattr(inner, "__name__", str(inner))


def _list(origin: object, arguments: tuple[object, ...], bounds: Bounds, plural: bool) -> str:
    """Describes a list, or a tuple of fixed length."""
    items = [part for part in arguments if part is not Ellipsis]
    fixed = origin is tuple and items and Ellipsis not in arguments
    low, high = bounds.get("min_length", 0), bounds.get("max_length")
    if fixed:
        low = high = len(items)
    count = f"{low} " if low == high else f"at least {low} " if low > 1 and high is None else ""
    if high is not None and low != high:
        count = f"{low} to {high} "
    content = describe(items[0], plural=True) if items else "values"
    noun = ("lists" if plural else "a list") if low != 1 or high is not None else "lists" if plural else "a filled list"
    return f"{noun} of {count}{content}"


def _mapping(annotation: object, plural: bool) -> str:
    """Describes a mapping, with its keys where they are declared."""
    if is_typeddict(annotation):
        keys = get_type_hints(annotation, include_extras=True)
        return f"a mapping with {', '.join(f'{key} ({describe(part)})' for key, part in keys.items())}"
    return "mappings" if plural else "a mapping of keys to values"


def _limits(bounds: Bounds, kind: object) -> str:
    """Writes bounds behind a noun: ``from 1 to 8``, ``in (0, 1]``, ``of at least 1``."""
    if kind is str:
        return " that is not empty" if bounds.get("min_length") else ""
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    opened, closed = "[" if "ge" in bounds else "(", "]" if "le" in bounds else ")"
    several = f", a multiple of {bounds['multiple_of']:g}" if "multiple_of" in bounds else ""
    if low is not None and high is not None:
        if kind is int and "ge" in bounds and "le" in bounds:
            return f" from {low} to {high}{several}"
        return f" in {opened}{low:g}, {high:g}{closed}{several}"
    if low is not None:
        return (f" of at least {low:g}" if "ge" in bounds else f" above {low:g}") + several
    if high is not None:
        return (f" of at most {high:g}" if "le" in bounds else f" below {high:g}") + several
    return several
