"""What pydantic finds wrong with a file that a user wrote, told all at once: the line, the key, and what was meant."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from inspect import isclass
from typing import Annotated, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from leakgauge.harness.errors import ConfigError, LeakgaugeError, missing_key, suggest
from leakgauge.harness.suite.text_source import TextSource, all_told
from leakgauge.harness.system.json_data import JsonPath, item_of
from leakgauge.harness.system.plain_text import quoted, shortened
from leakgauge.harness.values.stored_shapes import bounded_problem

Model = TypeVar("Model", bound=BaseModel)
_BETWEEN_KEYS = "between_keys"
_MOST_PROBLEMS = 200
"""Problems that are looked at: of a file of another kind thousands would be found, and none more be told."""


def schema_error(
    error: ValidationError,
    data: object,
    source: TextSource,
    model: type[BaseModel],
    *,
    kind: type[LeakgaugeError] = ConfigError,
    hint: str = "mend that key",
) -> LeakgaugeError:
    """Returns what is wrong with data as the one error, or all of them as one, in the order of the file.

    Args:
        error: What pydantic says.
        data: What it was given.
        source: Where the data was read.
        model: What they should be.
        kind: The error of one problem.
        hint: What to do, where the problem does not say so itself.
    """
    report = sorted(problems_of(error, data), key=lambda one: source.line(_place(one, data, source)))
    told = [_told(one, data, source, model, kind, hint) for one in report]
    return all_told(told, source.name, hint if kind is not ConfigError else "mend these")


def validated(model: type[Model], data: object, source: TextSource) -> Model:
    """Returns data as the model that a file that a user wrote must be.

    Args:
        model: The model.
        data: The keys.
        source: Where they were read.

    Raises:
        ConfigError: They do not fit; several problems are told at once.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise schema_error(error, data, source, model) from error
    except (RecursionError, OverflowError) as error:
        what = "nested too deep, or a number too large"
        raise ConfigError(what, where=source.name, hint="write it flatter") from error


def refuse(problems: Iterable[str]) -> None:
    """Raises all that is wrong between the keys of a model, each beginning with a key's path, in a validator of it.

    Raises:
        PydanticCustomError: There is a problem.
    """
    if found := list(dict.fromkeys(problems)):
        raise PydanticCustomError(_BETWEEN_KEYS, "{first}", {"first": found[0], "problems": found})


def twice(key: str, names: Sequence[str]) -> Iterator[str]:
    """Yields the problems of names in a list under a key, which must be unique."""
    for number, name in enumerate(names):
        if name in names[:number]:
            yield f"{key}.{number}: the name {name!r} occurs twice; names must be unique"


def keys_at(model: type[BaseModel], path: JsonPath) -> list[str]:
    """Returns the keys that may stand in the mapping at a path, by the annotations of a model."""
    annotations: list[object] = [model]
    for part in path:
        # What is no key, such as the kind that pydantic tried of several, leads nowhere.
        annotations = [inner for annotation in annotations for inner in _inside(annotation, part)] or annotations
    models = (
        one for annotation in annotations for one in _kinds(annotation) if isclass(one) and issubclass(one, BaseModel)
    )
    return list(dict.fromkeys(name for one in models for name in one.model_fields))


def _kinds(annotation: object) -> Iterator[object]:
    """Yields what a value may be: the members of a union, without what annotations add."""
    if get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for one in get_args(annotation):
            yield from _kinds(one)
    elif get_origin(annotation) is not Literal:
        yield annotation


def _inside(annotation: object, part: str | int) -> Iterator[object]:
    """Yields the annotations of what lies under a key or number of a value."""
    for one in _kinds(annotation):
        if isclass(one) and issubclass(one, BaseModel):
            if part in one.model_fields:
                yield one.model_fields[str(part)].annotation
        elif get_origin(one) is dict:
            yield get_args(one)[1]
        elif isinstance(part, int):
            yield from (each for each in get_args(one) if each is not Ellipsis)


def problems_of(error: ValidationError, data: object) -> list[ErrorDetails]:
    """Returns pydantic's report without what follows from the rest: misspelt keys are missing, broken items absent."""
    report = error.errors(include_url=False)[:_MOST_PROBLEMS]
    if report[0]["type"] == _BETWEEN_KEYS:  # found only where each key for itself is well
        return [{**report[0], "msg": text} for text in report[0]["ctx"]["problems"]]
    odd: dict[JsonPath, list[str]] = {}
    for one in report:
        if one["type"] == "extra_forbidden":
            odd.setdefault(one["loc"][:-1], []).append(str(one["loc"][-1])[:80])
    lacking = {_stated(data, one["loc"]) for one in report if one["type"] == "missing"}

    def meant(loc: JsonPath) -> bool:
        return bool(get_close_matches(str(loc[-1]), odd.get(loc[:-1], []), n=1))

    def follows(one: ErrorDetails) -> bool:
        place = _stated(data, one["loc"])
        if one["type"] == "missing":
            return meant(one["loc"])
        if one["input"] is None and len(place) < len(one["loc"]) and place in lacking:
            return True  # a label that would have been taken from the name
        return one["type"] == "too_short" and any(
            other["loc"][: len(one["loc"])] == one["loc"] and other is not one for other in report
        )

    # What may be one of several kinds is told once for each kind: the first will do.
    places: dict[tuple[JsonPath, JsonPath], ErrorDetails] = {}
    for one in report:
        if not follows(one):
            place = _stated(data, one["loc"])
            places.setdefault((place, one["loc"] if one["type"] == "missing" else ()), one)
    return list(places.values())


def _path(problem: ErrorDetails) -> JsonPath:
    """Returns where a problem is, without which of several kinds pydantic tried: ``literal['all']``, ``[key]``."""
    return tuple(part for part in problem["loc"] if isinstance(part, int) or "[" not in part)


def _place(problem: ErrorDetails, data: object, source: TextSource) -> JsonPath:
    """Returns where a problem is in the data; what is wrong between keys begins with the path of one."""
    path = _path(problem)
    return _stated(data, path) if path else source.find(problem["msg"].removeprefix("Value error, "))


def _stated(data: object, path: JsonPath) -> JsonPath:
    """Returns as much of a path as leads somewhere in the data."""
    for number, key in enumerate(path):
        try:
            data = item_of(data, key)
        except (KeyError, IndexError, TypeError):
            return path[:number]
    return path


def _at(data: object, path: JsonPath) -> object:
    for key in path:
        data = item_of(data, key)
    return data


def _told(
    problem: ErrorDetails,
    data: object,
    source: TextSource,
    model: type[BaseModel],
    kind: type[LeakgaugeError],
    hint: str,
) -> LeakgaugeError:
    """Turns a problem of pydantic's report into an error that names the line."""
    path = _path(problem)
    text, place = bounded_problem({**problem, "loc": path})
    if problem["type"] == "missing":
        return _lacking(path, data, source, model, kind)
    if problem["type"] == "extra_forbidden":
        text = f"unknown key {quoted(path[-1])} ({suggest(str(path[-1]), keys_at(model, path[:-1]))})"
    elif problem["type"] == "literal_error" and isinstance(problem["input"], str):
        allowed = re.findall(r"'([^']+)'", str(problem["ctx"]["expected"]))
        text = f"unknown {quoted(problem['input'])} ({suggest(shortened(problem['input'], 40), allowed)})"
    elif problem["type"] in {"model_type", "model_attributes_type"}:
        text = f"keys and values belong here, found {quoted(problem['input'])}"
    where = source.place(path or _place(problem, data, source))
    named = f"{place}{source.called(path)}"
    return kind(text, where=f"{where}: {named}" if place else where, hint=hint)


def _lacking(
    path: JsonPath, data: object, source: TextSource, model: type[BaseModel], kind: type[LeakgaugeError]
) -> LeakgaugeError:
    """Returns the error of a key that is missing, at the line of the key that was meant to be it."""
    key, above = str(path[-1]), _stated(data, path[:-1])
    found = _at(data, above)
    text, meant = missing_key(key, found if isinstance(found, Mapping) else {}, keys_at(model, above))
    where = source.place((*above, meant) if meant else above)
    place = shortened(".".join(map(str, above)), 60) + source.called(above)
    hint = f"write `{key}:` there" if meant else f"add `{key}: ...`"
    return kind(text, where=f"{where}: {place}" if place else where, hint=hint)
