"""YAML as its version 1.2 defines it (core schema), bounded: the one place where configuration text becomes data.

PyYAML reads version 1.1, where ``4e-3`` is a text, ``010`` is eight, ``1:30`` ninety, and ``no`` is false. Its scanner
and parser are kept, since they are well tested and everybody has them; what a plain scalar means is decided here, by
the core schema of YAML 1.2.2 (section 10.3.2). Readers of 1.2 were tried (docs/explanations/libraries.md): ruamel.yaml
takes ``1_000`` for a number and bounds neither depth nor aliases nor digits, py-yaml12 not even the memory it takes.
"""

from __future__ import annotations

import math
import re
from typing import NoReturn, cast

import yaml
from yaml.events import Event
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from leakgauge.harness.system.plain_text import is_plain, quoted, shortened

MAX_CHARACTERS = 256 * 1024
MAX_DEPTH = 20
MAX_NODES = 20_000
"""Values in all, each counted as often as aliases repeat it."""
MAX_DIGITS = 19

_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_SCHEMA = (("null", _NULL), ("bool", _BOOL), ("int", _INT), ("float", _FLOAT))


class _Reader(yaml.SafeLoader):
    """PyYAML's scanner and parser under the core schema; what else a text may do is refused."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def resolve(self, kind: type[Node], value: str, implicit: tuple[bool, bool]) -> str:
        if kind is SequenceNode:
            return f"{_TAG}seq"
        if kind is MappingNode:
            return f"{_TAG}map"
        if implicit[0]:
            return next((f"{_TAG}{name}" for name, pattern in _SCHEMA if pattern.fullmatch(value)), f"{_TAG}str")
        return f"{_TAG}str"

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._problem(f"nested deeper than {MAX_DEPTH} levels", self.peek_event())  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: Node, deep: bool = False) -> NoReturn:
        raise NotImplementedError("values are built by `_value`")

    @staticmethod
    def _problem(what: str, at: Event) -> yaml.MarkedYAMLError:
        # The stubs know of a mark of the parser in C too, which is not used here.
        return yaml.MarkedYAMLError(problem=what, problem_mark=cast(yaml.Mark, at.start_mark))


def read_yaml(text: str) -> object:
    """Reads one document of YAML 1.2, core schema.

    Keys occur once, and are texts, numbers, booleans or null. Aliases may repeat a value, not contain themselves.

    Raises:
        ValueError: It is no such document, or larger, deeper or longer in its numbers than the bounds of this module;
            says what, and in which line.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text)} characters, more than {MAX_CHARACTERS}")
    try:
        node = _Reader(text).get_single_node()
        return None if node is None else _Values().of(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{shortened(str(error.problem or error.context), 90)}{place}") from error
    except yaml.YAMLError as error:
        raise ValueError(shortened(" ".join(str(error).split()), 90)) from error
    except (OverflowError, RecursionError) as error:
        raise ValueError(f"a value that cannot be read: {type(error).__name__}") from error


def lines_of(text: str) -> dict[tuple[str | int, ...], int]:
    """Returns in which line each key and each item of a YAML text stands, by the path of keys and numbers to it.

    Of a text that cannot be read nothing is known.
    """
    found: dict[tuple[str | int, ...], int] = {}

    def walk(node: Node, path: tuple[str | int, ...]) -> None:
        if len(found) > MAX_NODES:  # aliases may repeat
            return
        if isinstance(node, MappingNode):
            for key, value in node.value:
                found[(*path, str(key.value))] = key.start_mark.line + 1
                walk(value, (*path, str(key.value)))
        elif isinstance(node, SequenceNode):
            for number, item in enumerate(node.value):
                found[(*path, number)] = item.start_mark.line + 1
                walk(item, (*path, number))

    try:
        read_yaml(text)  # within its bounds, without which a walk need not end
        node = _Reader(text).get_single_node()
    except (ValueError, yaml.YAMLError):
        return {}
    if node is not None:
        walk(node, ())
    return found


class _Values:
    """Turns nodes into values, counting them."""

    def __init__(self) -> None:
        self._count = 0
        self._open: set[int] = set()

    def of(self, node: Node) -> object:
        self._count += 1
        if self._count > MAX_NODES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_NODES} values", problem_mark=node.start_mark)
        if isinstance(node, ScalarNode):
            return _scalar(node)
        if id(node) in self._open:
            raise yaml.MarkedYAMLError(problem="an alias within its own value", problem_mark=node.start_mark)
        self._open.add(id(node))
        value = self._sequence(node) if isinstance(node, SequenceNode) else self._mapping(node)
        self._open.remove(id(node))
        return value

    def _sequence(self, node: SequenceNode) -> list[object]:
        _check_tag(node, "seq")
        return [self.of(item) for item in node.value]

    def _mapping(self, node: Node) -> dict[object, object]:
        _check_tag(node, "map")
        found: dict[object, object] = {}
        for key_node, value_node in node.value:
            key = self.of(key_node)
            if isinstance(key, (list, dict)):
                raise yaml.MarkedYAMLError(problem="a key that is no scalar", problem_mark=key_node.start_mark)
            if key in found:
                problem = f"key {quoted(key)} occurs twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            found[key] = self.of(value_node)
        return found


def _check_tag(node: Node, kind: str) -> None:
    if node.tag != f"{_TAG}{kind}":
        raise yaml.MarkedYAMLError(problem=f"tag {quoted(node.tag)} is not read", problem_mark=node.start_mark)


def _scalar(node: ScalarNode) -> bool | int | float | str | None:
    text: str = node.value
    kind = node.tag.removeprefix(_TAG)
    pattern = dict(_SCHEMA).get(kind)
    if kind == "str":
        if not is_plain(text):
            problem = f"text with control characters or lone surrogates, {quoted(text)}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return text
    if pattern is None or not pattern.fullmatch(text):
        raise yaml.MarkedYAMLError(
            problem=f"{quoted(text)} with tag {quoted(node.tag)} is not read", problem_mark=node.start_mark
        )
    if kind in {"int", "float"} and len(text) > (400 if kind == "float" else MAX_DIGITS + 2):
        raise yaml.MarkedYAMLError(problem=f"a number of {len(text)} digits", problem_mark=node.start_mark)
    value = _number_or_word(kind, text)
    if isinstance(value, float) and math.isinf(value) and "inf" not in text.lower():
        raise yaml.MarkedYAMLError(problem=f"{quoted(text)} is beyond all numbers", problem_mark=node.start_mark)
    return value


def _number_or_word(kind: str, text: str) -> bool | int | float | None:
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    return float(text.replace(".", "", 1) if text.lower().lstrip("+-") in {".inf", ".nan"} else text)


class _Writer(yaml.SafeDumper):
    """Quotes every text that a reader of either version of YAML would take for something else."""

    def ignore_aliases(self, data: object) -> bool:
        return True


for _name, _pattern in _SCHEMA:
    _Writer.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern.pattern})$"), None)


def write_yaml(data: object) -> str:
    """Writes data as YAML that reads back equal, here and by a reader of YAML 1.1."""
    written: str = yaml.dump(data, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=100)
    return written
