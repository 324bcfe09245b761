"""Finds plug-ins through entry points; built-ins and third parties register the same way.

What checks plug-ins needs pydantic and torch, and is imported when one is built: finding them is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, overload

from leakgauge.harness.errors import ConfigError, LeakgaugeError, PluginError, missing_key, suggest
from leakgauge.harness.system.extras import hint_of
from leakgauge.harness.system.plain_text import quoted, shortened, shown

if TYPE_CHECKING:
    from leakgauge.harness.contracts.defense import Defense
    from leakgauge.harness.contracts.link import Channel, Codec, Perturbation, SymbolCodec
    from leakgauge.harness.contracts.metric import Metric
    from leakgauge.harness.contracts.probing import Attacker
    from leakgauge.harness.contracts.reduction import Reduction
    from leakgauge.harness.contracts.task import Task
    from leakgauge.harness.values.layer_view import Inspection

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
def default_of(role: str, group: str = "") -> str:
    """Returns the name of the plug-in that is meant where nothing is stated: what ``leakgauge.defaults`` names.

    Args:
        role: What it is the default for; a group, unless that is given.
        group: The group that the plug-in is of.

    Raises:
        PluginError: Nothing is named, or what no plug-in of the group is, or two distributions name different ones.
    """
    group = group or role
    stated = _rivals("defaults").get(role, [])
    found = [name for name, point in plugins(group).items() if [point.value] == stated]
    if not found:
        named = " and ".join(shortened(value, 40) for value in stated[:2])
        what = "is registered twice, by" if len(stated) > 1 else "is none of them:" if stated else "is not registered"
        raise PluginError(
            f"the default of {group} ({role!r}) {what} {named}".rstrip(),
            where="leakgauge.defaults",
            hint="install the project again, or state one",
        )
    return found[0]


@cache
def _rivals(group: str) -> dict[str, list[str]]:
    """Returns by name what distributions register under it."""
    found: dict[str, list[str]] = {}
    for point in entry_points(group=f"leakgauge.{group}"):
        values = found.setdefault(point.name, [])
        values += [point.value] if point.value not in values else []
    return found


class Factory(Protocol):
    """What an entry point names: the class of a plug-in, or a function."""

    def __call__(self, *arguments: object, **options: object) -> object:
        """Builds the plug-in from keyword options; functions take what their group says."""

    def __hash__(self) -> int: ...


@overload
def load(group: Literal["attacks"], name: str, *, where: str = "") -> type[Attacker]: ...
@overload
def load(group: Literal["commands"], name: str, *, where: str = "") -> Callable[[], object]: ...
@overload
def load(group: Literal["figures"], name: str, *, where: str = "") -> Callable[[Inspection], bytes]: ...
@overload
def load(group: Literal["models"], name: str, *, where: str = "") -> Callable[[], Mapping[str, str]]: ...
@overload
def load(group: Literal["reductions"], name: str, *, where: str = "") -> type[Reduction]: ...
@overload
def load(group: Literal["search_figures"], name: str, *, where: str = "") -> Callable[[Path], object]: ...
@overload
def load(group: Literal["templates"], name: str, *, where: str = "") -> Callable[[bool], str]: ...
@overload
def load(group: str, name: str, *, where: str = "") -> object: ...
def load(group: str, name: str, *, where: str = "") -> object:
    """Imports the plug-in ``name`` of ``group``.

    Raises:
        ConfigError: The name is unknown.
        PluginError: Its module cannot be imported, or two distributions register the name for different objects.
    """
    return _loaded(group, name, where)


def _loaded(group: str, name: str, where: str) -> Factory:
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
        found: Factory = known[name].load()
    except (Exception, SystemExit) as error:  # a module may well call sys.exit
        raise PluginError(
            f"{group[:-1]} {name!r} cannot be imported: {error}",
            where=known[name].value,
            hint=hint_of(error, "reinstall the package that provides it"),
        ) from error
    return found


def check(
    group: str, name: str, options: Mapping[str, object], *, where: str = "", given: Iterable[str] = ()
) -> dict[str, object]:
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

    factory = _loaded(group, name, where)
    place = _place(where, group, name)
    checked = check_options(factory, options, place, given)
    declared = signature_of(factory).options
    for key, value in checked.items():
        for inner, spec in nested_plugins(declared[key].annotation, value) if key in declared else ():
            inner_name, inner_options = name_and_options(inner, spec, f"{place}: {key}")
            check(inner, inner_name, inner_options, where=f"{place}: {key}")
    return checked


def _place(where: str, group: str, name: str) -> str:
    """Names the plug-in at its place, its kind only once: lines are short, and plug-ins nest."""
    kind = group[:-1]
    return f"{where} {name!r}" if where.rsplit(" ", maxsplit=1)[-1] == kind else f"{where} ({kind} {name!r})".strip()


def written_out(spec: object) -> object:
    """Returns a plug-in stated by its bare name as ``{name: ...}``; what is no text as it is."""
    return {"name": spec} if isinstance(spec, str) else spec


def labelled(spec: object) -> object:
    """Returns a plug-in stated by name, or with its options beside its label, as ``{label: ..., plugin: {...}}``."""
    stated = written_out(spec)
    if not isinstance(stated, dict) or "plugin" in stated:
        return stated
    plugin = {key: value for key, value in stated.items() if key != "label"}
    return {"label": stated.get("label", stated.get("name")), "plugin": plugin}


def label_of(spec: object) -> str:
    """Returns by which name an item of a list goes: its label, or else its name; empty where it has none."""
    stated = written_out(spec)
    found = stated.get("label", stated.get("name", "")) if isinstance(stated, Mapping) else ""
    return found if isinstance(found, str) else ""


def name_of(spec: object) -> str:
    """Returns the name of a plug-in, labelled or not; empty where none is named."""
    stated = written_out(spec)
    plugin = written_out(stated.get("plugin", stated)) if isinstance(stated, Mapping) else None
    found = plugin.get("name") if isinstance(plugin, Mapping) else None
    return found if isinstance(found, str) else ""


def name_and_options(group: str, spec: object, where: str) -> tuple[str, dict[str, object]]:
    """Reads ``name`` or ``{name: ..., options}``; raises ConfigError where no plug-in is named."""
    stated = written_out(spec)
    options = dict(stated) if isinstance(stated, dict) else {}
    name = options.pop("name", None)
    if isinstance(spec, dict) and "name" not in spec:
        what = f"names no {group[:-1]}: {missing_key('name', spec)[0]}"
        raise ConfigError(what, where=where, hint="write {name: ...}")
    if not isinstance(name, str):
        raise ConfigError(f"{shown(spec)} names no {group[:-1]}", where=where, hint="write {name: ...}")
    return name, options


@overload
def create(group: Literal["attacks"], name: str, options: Mapping[str, object], *, where: str = "") -> Attacker: ...
@overload
def create(group: Literal["defenses"], name: str, options: Mapping[str, object], *, where: str = "") -> Defense: ...
@overload
def create(group: Literal["tasks"], name: str, options: Mapping[str, object], *, where: str = "") -> Task: ...
@overload
def create(group: Literal["metrics"], name: str, options: Mapping[str, object], *, where: str = "") -> Metric: ...
@overload
def create(group: Literal["channels"], name: str, options: Mapping[str, object], *, where: str = "") -> Channel: ...
@overload
def create(group: Literal["reductions"], name: str, options: Mapping[str, object], *, where: str = "") -> Reduction: ...
@overload
def create(group: str, name: str, options: Mapping[str, object], *, where: str = "") -> object: ...
def create(group: str, name: str, options: Mapping[str, object], *, where: str = "") -> object:
    """Builds the plug-in ``name`` of ``group`` from keyword options, once they are checked.

    One that states no ``name`` of its own bears that of its entry point.

    Raises:
        ConfigError: The name or an option is unknown, or an option's value is refused.
        PluginError: The constructor failed in another way.
    """
    from leakgauge.harness.contracts.declarations import check_declarations  # noqa: PLC0415 - heavy

    factory, place = _loaded(group, name, where), _place(where, group, name)
    checked = check(group, name, options, where=where)
    try:
        built = factory(**checked)
    except LeakgaugeError as error:
        raise type(error)(error.what, where=error.where or place, hint=error.hint) from error
    except (Exception, SystemExit) as error:
        raise PluginError(f"constructor failed: {error}", where=place, hint="check the options in the suite") from error
    if not hasattr(built, "name"):
        with suppress(AttributeError):  # what takes no attributes is told that it has no name
            setattr(built, "name", name)  # noqa: B010 - plug-ins have many types, and some none of ours
    check_declarations(built, place)
    return built


@overload
def create_nested(group: Literal["channels"], spec: object, *, where: str) -> Channel: ...
@overload
def create_nested(group: Literal["codecs"], spec: object, *, where: str) -> Codec | SymbolCodec: ...
@overload
def create_nested(group: Literal["perturbations"], spec: object, *, where: str) -> Perturbation: ...
@overload
def create_nested(group: Literal["reductions"], spec: object, *, where: str) -> Reduction: ...
@overload
def create_nested(group: str, spec: object, *, where: str) -> object: ...
def create_nested(group: str, spec: object, *, where: str) -> object:
    """Builds the plug-in that an option names, ``name`` or ``{name: ..., options}``; ``where`` says whose option.

    Raises:
        ConfigError: It names none, or as for ``create``.
        PluginError: As for ``create``.
    """
    name, options = name_and_options(group, spec, f"{where}: {group[:-1]}")
    return create(group, name, options, where=where)
