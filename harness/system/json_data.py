"""What JSON and YAML can state, as a type, and what lies within it."""

from __future__ import annotations

from typing import Protocol, TypeAlias, runtime_checkable

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""What JSON can state."""
JsonPath: TypeAlias = tuple[str | int, ...]
"""Keys and numbers of items that lead to a value, from the outside in."""


@runtime_checkable
class _Subscriptable(Protocol):
    def __getitem__(self, key: str | int, /) -> object: ...


@runtime_checkable
class _Assignable(Protocol):
    def __setitem__(self, key: str | int, value: object, /) -> None: ...


def item_of(data: object, key: str | int) -> object:
    """Returns what lies under a key of a mapping, or at a place of a list.

    Raises:
        KeyError: The mapping has no such key.
        IndexError: The list is shorter.
        TypeError: It is neither, or of the other kind.
    """
    if not isinstance(data, _Subscriptable):
        raise TypeError(f"{type(data).__name__!r} object is not subscriptable")
    return data[key]


def set_item(data: object, key: str | int, value: object) -> None:
    """Puts a value under a key of a mapping, or at a place of a list; raises what ``item_of`` does."""
    if not isinstance(data, _Assignable):
        raise TypeError(f"{type(data).__name__!r} object does not support item assignment")
    data[key] = value


def is_plain_data(value: object) -> bool:
    """Tells whether a value is what JSON can state; tuples count as lists."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain_data(item) for key, item in value.items())
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return all(map(is_plain_data, value))
    return value is None or type(value) in (bool, int, float, str)
