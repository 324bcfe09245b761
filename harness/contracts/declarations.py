"""What plug-ins declare of themselves as class attributes, and the check that each is of the type that it must be."""

from __future__ import annotations

import inspect
import typing
from typing import ClassVar, Literal, NamedTuple

from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from torch import Tensor, nn

from leakgauge.harness.errors import PluginError

Training = Literal["closed_form", "learned", "search"]
"""How an attacker arrives at its answers.

``learned``: by optimiser steps in ``fit``, which must return a learning curve; without one it is inconclusive.
``closed_form``: solved in one go, so that only images can be lacking; measured by a refit with half of them.
``search``: goes on until a rule of its own holds, anew for every image or once, and must set ``caveat``: to None where
the rule held, else to what stopped it. One that never sets it is inconclusive.
"""
Layout = Literal["needs order", "finds positions", "needs none"]
"""What an attacker can make of tokens whose place is not told.

``needs order``: it reads tokens where they lie, or by the merge map where that is granted. ``finds positions``: it
works out from the tokens, or from what its own images show, where they belong. ``needs none``: its answer has no
layout.
"""
LEAST_STEPS = 500
"""Optimiser steps below which no training is called converged, unless its plug-in states another number.

An attacker that has yet to find out where tokens belong gains little from doubling after doubling, and then much: its
curve looks like a plateau before it is one.
"""


class Knowledge(NamedTuple):
    """What an attack needs to know beyond the received tokens."""

    sizes: bool = False
    order: bool = False
    merge_map: bool = False
    channel_state: bool = False
    victim: Literal["none", "query", "white-box"] = "none"
    auxiliary: bool = True


class Declarations:
    """What every attacker declares; wrappers declare it of what is within.

    Attributes:
        knowledge: What it needs to know.
        training: How it arrives at its answers.
        layout: What it can make of tokens whose place is not told.
        least_steps: Optimiser steps below which its training is not called converged.
        adaptive: Whether it trains on the operating point that it attacks, where the threat model lets it; of one that
            does not, leakage is a lower bound.
        caveat: Set by the attacker: why it may be under-trained, where a learning curve cannot tell.
    """

    name: ClassVar[str]
    knowledge: ClassVar[Knowledge] = Knowledge()
    training: ClassVar[Training] = "learned"
    layout: ClassVar[Layout] = "needs order"
    least_steps: ClassVar[int] = LEAST_STEPS
    adaptive: ClassVar[bool] = True
    caveat: str | None = None


def check_knowledge_type(found: object, where: str) -> Knowledge:
    """Returns what a plug-in says that it needs to know.

    Raises:
        PluginError: It is no Knowledge, or one of its fields is of another type.
    """
    if not isinstance(found, Knowledge):
        raise PluginError(
            f"knowledge is {_shown(found)}, not a Knowledge",
            where=where,
            hint='write knowledge = Knowledge(victim="query"), which leakgauge offers',
        )
    for field, annotation in typing.get_type_hints(Knowledge).items():
        value = getattr(found, field)
        if not _fits(value, annotation):
            raise PluginError(
                f"knowledge: {field} is {_shown(value)}, expected {_named(annotation)}",
                where=where,
                hint="mend that field in the plug-in",
            )
    return found


def check_declarations(plugin: object, where: str) -> None:
    """Checks the class attributes that the contracts of ``harness`` ask of a plug-in, or of a class of plug-ins.

    Args:
        plugin: The plug-in or its class; what derives from no contract passes.
        where: Names the plug-in.

    Raises:
        PluginError: One is missing or of another type.
    """
    kind = plugin if isinstance(plugin, type) else type(plugin)
    for contract in (base for base in kind.__mro__ if base.__module__.startswith("leakgauge.harness.")):
        for name, annotation in _declared(contract).items():
            value = getattr(plugin, name, _MISSING)
            if isinstance(value, property) or (value is _MISSING and isinstance(plugin, type)):
                continue
            if value is _MISSING:
                # What an instance may set later, or never, is not asked for.
                if str(inspect.get_annotations(contract)[name]).startswith("ClassVar"):
                    raise PluginError(f"{name} is not stated", where=where, hint=f"state {name}: {_named(annotation)}")
                continue
            if annotation is Knowledge:
                check_knowledge_type(value, where)
            elif not _fits(value, annotation):
                raise PluginError(
                    f"{name} is {_shown(value)}, expected {_named(annotation)}",
                    where=where,
                    hint=f"mend {name} in the plug-in",
                )


_MISSING = object()


def _declared(contract: type) -> dict[str, object]:
    """Returns the public class attributes that a contract itself annotates, with their types; None where unknown."""
    own = inspect.get_annotations(contract)
    if not own or issubclass(contract, (tuple, nn.Module)):
        return {}
    try:
        annotations = typing.get_type_hints(contract)
    except Exception:  # an annotation whose name is imported for type checkers alone
        return {}
    return {
        name: typing.get_args(annotations[name])[0]
        if typing.get_origin(annotations[name]) is ClassVar
        else annotations[name]
        for name in own
        if not name.startswith("_") and name in annotations
    }


def _fits(value: object, annotation: object) -> bool:
    """Tells whether a value is of an annotated type, converting nothing; types that cannot be checked pass."""
    try:
        config = ConfigDict(strict=True, arbitrary_types_allowed=True)
        adapter = TypeAdapter(typing.cast("type[object]", annotation), config=config)
    except (PydanticUserError, PydanticSchemaGenerationError):
        return True
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    except TypeError:  # a protocol that cannot be asked at run time
        return True
    return True


def _named(annotation: object) -> str:
    if typing.get_origin(annotation) is Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(annotation))
    return (
        annotation.__name__
        if isinstance(annotation, type) and not typing.get_args(annotation)
        else str(annotation).replace("typing.", "")
    )


def _shown(value: object) -> str:
    kind = type(value).__name__
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return f"{kind} {value!r:.60}" if isinstance(value, str | int | float | dict | tuple | list) else kind
