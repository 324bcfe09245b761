"""Finds plug-ins through entry points; built-ins and third parties register the same way.

What checks plug-ins needs pydantic and torch, and is imported when one is built: finding them is quick.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from leakgauge.harness.errors import ConfigError, LeakgaugeError, PluginError, suggest
from leakgauge.harness.system.extras import hint_of
from leakgauge.harness.system.plain_text import quoted

GROUPS = (
    "attacks",
    "defenses",
    "reductions",
    "perturbations",
    "codecs",
    "channels",
    "tasks",
    "metrics",
    "judges",
    "reports",
    "figures",
    "suites",
)


@cache
def plugins(group: str) -> dict[str, EntryPoint]:
    """Returns the entry points of ``leakgauge.<group>`` by name; ``load`` refuses a name that two registered."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"leakgauge.{group}"):
        found.setdefault(point.name, point)
    return found


@cache
def _rivals(group: str) -> dict[str, list[str]]:
    """Returns by name what distributions register under it."""
    found: dict[str, list[str]] = {}
    for point in entry_points(group=f"leakgauge.{group}"):
        values = found.setdefault(point.name, [])
        values += [point.value] if point.value not in values else []
    return found


def load(group: str, name: str, *, where: str = "") -> Any:
    """Imports the plug-in ``name`` of ``group``.

    Raises:
        ConfigError: The name is unknown.
        PluginError: Its module cannot be imported, or two distributions register the name for different objects.
    """
    known = plugins(group)
    if name not in known:
        raise ConfigError(f"unknown {group[:-1]} {quoted(name)}", where=where, hint=suggest(name, list(known)))
    rivals = _rivals(group).get(name, ())
    if len(rivals) > 1:
        raise PluginError(
            f"{name!r} is registered twice, by {' and '.join(rivals)}",
            where=f"leakgauge.{group}",
            hint="uninstall one of the packages or rename its entry point",
        )
    try:
        return known[name].load()
    except (Exception, SystemExit) as error:  # a module may well call sys.exit
        raise PluginError(
            f"{group[:-1]} {name!r} cannot be imported: {error}",
            where=known[name].value,
            hint=hint_of(error, "reinstall the package that provides it"),
        ) from error


def check(group: str, name: str, options: dict[str, Any], *, where: str = "", given: Iterable[str] = ()) -> Any:
    """Checks the options of the plug-in ``name``, and of all plug-ins within, by the annotations of constructors.

    Args:
        group: The plug-in's group.
        name: Its name.
        options: Keyword options, as a suite states them.
        where: Where it does.
        given: Options that the harness adds, which no suite may state.

    Returns:
        The options as the constructor declares them.

    Raises:
        ConfigError: The name or an option is unknown, an option is missing, or not what its annotation allows.
        PluginError: The plug-in cannot be imported.
    """
    from leakgauge.harness.suite.options import check_options, nested_plugins, signature_of  # noqa: PLC0415 - heavy

    factory = load(group, name, where=where)
    place = _place(where, group, name)
    options = check_options(factory, options, place, given)
    declared = signature_of(factory).options
    for key, value in options.items():
        for inner, spec in nested_plugins(declared[key].annotation, value) if key in declared else ():
            inner_name, inner_options = name_and_options(inner, spec, f"{place}: {key}")
            check(inner, inner_name, inner_options, where=f"{place}: {key}")
    return options


def _place(where: str, group: str, name: str) -> str:
    """Names the plug-in at its place, its kind only once: lines are short, and plug-ins nest."""
    kind = group[:-1]
    return f"{where} {name!r}" if where.rsplit(" ", maxsplit=1)[-1] == kind else f"{where} ({kind} {name!r})".strip()


def name_and_options(group: str, spec: Any, where: str) -> tuple[str, dict[str, Any]]:
    """Reads ``name`` or ``{name: ..., options}``; raises ConfigError where no plug-in is named."""
    from leakgauge.harness.suite.options import shown  # noqa: PLC0415 - heavy

    options = {"name": spec} if isinstance(spec, str) else dict(spec) if isinstance(spec, dict) else {}
    name = options.pop("name", None)
    if isinstance(spec, dict) and "name" not in spec:
        from leakgauge.harness.suite.schema_problems import missing_key  # noqa: PLC0415 - heavy

        what = f"names no {group[:-1]}: {missing_key('name', spec)[0]}"
        raise ConfigError(what, where=where, hint="write {name: ...}")
    if not isinstance(name, str):
        raise ConfigError(f"{shown(spec)} names no {group[:-1]}", where=where, hint="write {name: ...}")
    return name, options


def create(group: str, name: str, options: dict[str, Any], *, where: str = "") -> Any:
    """Builds the plug-in ``name`` of ``group`` from keyword options, once they are checked.

    One that states no ``name`` of its own bears that of its entry point.

    Raises:
        ConfigError: The name or an option is unknown, or an option's value is refused.
        PluginError: The constructor failed in another way.
    """
    from leakgauge.harness.contracts.declarations import check_declarations  # noqa: PLC0415 - heavy

    factory = load(group, name, where=where)
    place = _place(where, group, name)
    options = check(group, name, options, where=where)
    try:
        built = factory(**options)
    except LeakgaugeError as error:
        raise type(error)(error.what, where=error.where or place, hint=error.hint) from error
    except (Exception, SystemExit) as error:
        raise PluginError(f"constructor failed: {error}", where=place, hint="check the options in the suite") from error
    if not hasattr(built, "name"):
        with suppress(AttributeError):  # what takes no attributes is told that it has no name
            setattr(built, "name", name)  # noqa: B010 - plug-ins have many types, and some none of ours
    check_declarations(built, place)
    return built


def create_nested(group: str, spec: Any, *, where: str) -> Any:
    """Builds the plug-in that an option names, ``name`` or ``{name: ..., options}``; ``where`` says whose option.

    Raises:
        ConfigError: It names none, or as for ``create``.
        PluginError: As for ``create``.
    """
    name, options = name_and_options(group, spec, f"{where}: {group[:-1]}")
    return create(group, name, options, where=where)
