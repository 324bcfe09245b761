"""Options of plug-ins, checked once from the annotations of their constructors; third parties' likewise.

An author writes ``steps: Count`` or ``share: Annotated[float, Field(ge=0, le=1)]`` and no check. What one option allows
stands in its annotation; what several must be together is checked in the constructor.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar, get_args, get_origin

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from leakgauge.harness.errors import ConfigError, suggest
from leakgauge.harness.suite.annotations import choices_of, describe, parts_of
from leakgauge.harness.system.json_data import is_plain_data
from leakgauge.harness.system.plain_text import shown

Count = Annotated[int, Field(ge=1)]
"""A whole number of at least 1: steps, images, layers, channels."""
NotNegative = Annotated[int, Field(ge=0)]
"""A whole number of at least 0: a block counted from the first, steps that may be left out."""
Positive = Annotated[float, Field(gt=0)]
"""A finite number above 0: learning rates, scales."""
Weight = Annotated[float, Field(ge=0)]
"""A finite number of at least 0: the weight of a term, the strength of noise."""
Decibel = Annotated[float, Field(ge=-200, le=200)]
"""A ratio of powers in dB; beyond these bounds single precision sees none or all of the noise."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A number in [0, 1]: probabilities, parts of a whole."""
KeptShare = Annotated[float, Field(gt=0, le=1)]
"""A number in (0, 1]: a share that leaves something."""
Widths = Annotated[Sequence[Count], Field(min_length=1)]
"""Channels of layers, one number each."""
ColourOption = str | Annotated[Sequence[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]
"""A colour as a suite states it; ``leakgauge.harness.values.decoding.as_colour`` reads it."""
_T = TypeVar("_T")
PerBlock: TypeAlias = _T | Annotated[Sequence[_T], Field(min_length=1)]
"""One value for all edge blocks, or a list with one for each: ``PerBlock[Share]``."""


@dataclass(frozen=True)
class NestedPlugin:
    """Marks an option that names another plug-in: ``attack: Annotated[Spec, NestedPlugin("attacks")]``."""

    group: str


@dataclass(frozen=True)
class FileOption:
    """Marks a text that names a file or folder, which may be given relative to the suite's file: ``FilePath``.

    Attributes:
        where: Another option and the value with which this one names a file; None: it always does.
    """

    where: tuple[str, str] | None = None


FilePath = Annotated[str, FileOption()]
"""A file or folder: as it stands where it exists or is absolute, else beside the suite's file where it exists there."""
Spec = str | dict[str, object]
"""Another plug-in: its name, or ``{name: ..., options}``."""


class Option(NamedTuple):
    """An option of a plug-in: its annotation and default, ``inspect.Parameter.empty`` where there is none."""

    name: str
    annotation: object
    default: object

    @property
    def required(self) -> bool:
        """Whether the option must be given."""
        return self.default is inspect.Parameter.empty

    @property
    def checked(self) -> bool:
        """Whether the annotation says what is allowed."""
        return adapter_of(self.annotation) is not None


class Signature(NamedTuple):
    """The options of a plug-in by name, its own first; ``open_ended``: it may take others still.

    ``own`` names those that the constructor itself declares, not those that ``**options`` hands to its base.
    """

    options: dict[str, Option]
    own: frozenset[str]
    open_ended: bool


def _layers(factory: object) -> Iterator[tuple[object, inspect.Signature]]:
    """Yields the constructor, and while it ends in ``**options``, the constructor of the next base class."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    if not callable(factory):
        raise TypeError(f"{factory!r} is not a callable object")
    if not inspect.isclass(factory):
        yield factory, inspect.signature(factory)
        return
    yield factory.__init__, inspect.signature(factory)
    constructors = [base.__dict__["__init__"] for base in factory.__mro__[:-1] if "__init__" in base.__dict__]
    for constructor in constructors[1:]:
        signature = inspect.signature(constructor)
        yield constructor, signature.replace(parameters=list(signature.parameters.values())[1:])


@functools.lru_cache(maxsize=256)
def signature_of(factory: Hashable) -> Signature:
    """Returns what a plug-in may be given, with resolved annotations."""
    found: dict[str, Option] = {}
    own: frozenset[str] | None = None
    open_ended = False
    bound = set(inspect.signature(factory).parameters) if isinstance(factory, functools.partial) else None
    for constructor, signature in _layers(factory):
        annotations = _annotations(constructor)
        open_ended = False
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                open_ended = True
            elif parameter.kind is not parameter.VAR_POSITIONAL and (bound is None or name in bound):
                annotation = annotations.get(name, parameter.annotation)
                found.setdefault(name, Option(name, annotation, parameter.default))
        own = frozenset(found) if own is None else own
        if not open_ended:
            break
    return Signature(found, own or frozenset(), open_ended)


def _annotations(constructor: object) -> dict[str, object]:
    """Returns annotations that could be resolved; a name that is imported for type checkers only spoils its own."""
    try:
        return typing.get_type_hints(constructor, include_extras=True)
    except Exception:
        pass
    found = {}
    scope = getattr(inspect.unwrap(constructor) if callable(constructor) else None, "__globals__", {})
    for name, annotation in getattr(constructor, "__annotations__", {}).items():
        try:
            found[name] = typing.get_type_hints(
                types.SimpleNamespace(__annotations__={name: annotation}), scope, include_extras=True
            )[name]
        except Exception:
            found[name] = inspect.Parameter.empty
    return found


def check_options(
    factory: Hashable, options: Mapping[str, object], place: str, given: Iterable[str] = ()
) -> dict[str, object]:
    """Returns the options as the constructor declares them: lists become tuples where it says so.

    Args:
        factory: The plug-in.
        options: What a suite states.
        place: Where it does.
        given: Options that the harness adds, which no suite may state.

    Raises:
        ConfigError: An option is unknown, missing, or not what its annotation allows.
    """
    signature, added = signature_of(factory), set(given)
    known = [name for name in signature.options if name not in added]
    for key in options:
        if key in added or (key not in signature.options and not signature.open_ended):
            raise ConfigError(f"unknown option {shown(key)}", where=place, hint=_closest(str(key), known))
    for name in known:
        if name in signature.own and signature.options[name].required and name not in options:
            raise ConfigError(f"option {name!r} is missing", where=place, hint=f"add `{name}: ...`")
    return {
        key: _checked(signature.options[key], value, place) if key in signature.options else value
        for key, value in options.items()
    }


def _checked(option: Option, value: object, place: str) -> object:
    """Returns the value as its annotation declares it; raises ConfigError where the annotation does not allow it."""
    adapter = adapter_of(option.annotation)
    if adapter is None or _is_default(value, option.default):
        return value
    try:
        # As JSON, where a list may become a tuple and a text a path, but no text a number and no number a truth value.
        return adapter.validate_json(json.dumps(value)) if is_plain_data(value) else adapter.validate_python(value)
    except ValidationError as error:
        allowed = describe(option.annotation)
        name, found = _culprit(error, option.name, value)
        hint = _closest(value, choices_of(option.annotation)) if isinstance(value, str) else ""
        if not hint and not option.required and option.default is not None:
            hint = f"the default is {shown(option.default)}"
        raise ConfigError(
            f"{name} = {found} is not {allowed}" if name == option.name else f"{name} = {found}, wanted is {allowed}",
            where=place,
            hint=hint,
        ) from error


def _culprit(error: ValidationError, name: str, value: object) -> tuple[str, str]:
    """Returns which part of an option is at fault, ``thresholds[2]``, and its value as shown."""
    for problem in error.errors(include_url=False):
        index = next((part for part in problem["loc"] if isinstance(part, int)), None)
        if index is not None and isinstance(value, list | tuple) and index < len(value):
            return f"{name}[{index}]", shown(value[index])
    return name, shown(value)


def _is_default(value: object, default: object) -> bool:
    """Tells whether a value is the default, which is allowed whatever the annotation says: ``x: int = None``."""
    return value is default or (type(value) is type(default) and not isinstance(value, float) and value == default)


def adapter_of(annotation: object) -> TypeAdapter[object] | None:
    """Returns what checks a hint strictly; None where the hint says nothing, or nothing that can be checked."""
    if annotation is inspect.Parameter.empty or annotation is Any:
        return None
    try:
        return _cached_adapter(annotation)
    except TypeError:  # a hint that cannot be hashed
        return _adapter(annotation)


def _adapter(annotation: object) -> TypeAdapter[object] | None:
    if get_origin(annotation) in (Iterable, Iterator):
        annotation = list[get_args(annotation)] if get_args(annotation) else list  # type: ignore[misc]  # pydantic's would be read once
    config = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    for options in ({"config": config}, {}):
        try:
            return TypeAdapter(annotation, **options)  # type: ignore[arg-type]
        except PydanticUserError:  # models, dataclasses and typed dictionaries bring a configuration of their own
            continue
        except Exception:
            return None
    return None


_cached_adapter: Callable[[object], TypeAdapter[object] | None] = functools.lru_cache(maxsize=1024)(_adapter)


def nested_plugins(annotation: object, value: object) -> Iterator[tuple[str, object]]:
    """Yields (group, name or mapping) of the plug-ins that an option's value names, as its annotation marks them."""
    inner, metadata = parts_of(annotation)
    for mark in metadata:
        if isinstance(mark, NestedPlugin) and value is not None:
            yield mark.group, value
            return
    for part in get_args(inner) if get_origin(inner) is not Literal else ():
        if isinstance(value, list | tuple) and get_origin(inner) in (list, tuple, Sequence):
            for item in value:
                yield from nested_plugins(part, item)
        elif get_origin(inner) in (typing.Union, types.UnionType):
            yield from nested_plugins(part, value)


def beside(folder: Path, factory: Hashable, options: Mapping[str, object]) -> dict[str, object]:
    """Returns the options of a plug-in with files that exist only beside a suite's file named from here.

    Args:
        folder: Where the suite's file lies.
        factory: The plug-in.
        options: What the suite states.
    """
    known = signature_of(factory).options
    return {
        key: _beside(folder, value) if key in known and _names_file(known[key].annotation, options) else value
        for key, value in options.items()
    }


def _beside(folder: Path, value: object) -> object:
    if not isinstance(value, str) or not value:
        return value
    # os.path, whose answer for a loop of links or a NUL is no; what is absolute stays what it is.
    moved = os.path.join(folder, value)  # noqa: PTH118
    here = os.path.exists(os.path.expanduser(value))  # noqa: PTH110, PTH111
    return moved if not here and os.path.exists(moved) else value  # noqa: PTH110


def _names_file(annotation: object, options: Mapping[str, object]) -> bool:
    inner, metadata = parts_of(annotation)
    for mark in metadata:
        if isinstance(mark, FileOption) and (mark.where is None or options.get(mark.where[0]) == mark.where[1]):
            return True
    return any(_names_file(part, options) for part in get_args(inner))


def _closest(name: str, known: list[str]) -> str:
    return suggest(name, known) if known else ""
