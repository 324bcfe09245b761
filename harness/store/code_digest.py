"""Recognises the code that computes numbers, so that what another version computed is never taken for its work."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from leakgauge.harness.store.provenance import package_versions
from leakgauge.harness.suite import registry
from leakgauge.harness.suite.planning import Cell, content_hash
from leakgauge.harness.suite.schema import PluginConfig, Suite

Code = dict[str, str]
"""Packages by name: a digest of the files of those that are read here, the version of all others.

The folders of this package are told apart, as ``leakgauge.attacks``: what draws reports moves no number.
"""
OWN = "leakgauge"
GROUPS = ("defenses", "reductions", "perturbations", "codecs", "channels", "tasks")
"""Plug-ins that have a say in what the edge sends."""
SCORING = ("attacks", "metrics", "judges")
"""Plug-ins that have a say in what is made of it."""
_SHOWN_BY = "click jinja2 matplotlib mpl_toolkits rich typer"
_KEPT_BY = "filelock moocore optuna pandas psycopg pyarrow pydantic pytest sqlalchemy yaml"
PRESENTATION = frozenset(f"{_SHOWN_BY} {_KEPT_BY}".split())
"""Packages that draw, print, parse and store: none of them moves a number."""
_DISTRIBUTIONS = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn", "sionna": "sionna-no-rt"}
_IMPORT = re.compile(rb"^[ \t]*(?:from|import)[ \t]+((?:leakgauge\.)?[A-Za-z_]\w*)", re.MULTILINE)
_NO_CODE = frozenset({".pyc", ".pyo", ".md", ".yaml", ".yml", ".png", ".svg", ".html", ".j2", ".log"})
_WRITTEN_OF_RUNS = frozenset({"best_known.json"})
"""What results are held to decides none of them: writing it anew makes no other code of what wrote it."""


@cache
def code_digest() -> str:
    """Returns 16 hex digits over all code that has a say in what the edge sends, whichever of it is used."""
    modules = {point.value.split(":")[0] for group in GROUPS for point in registry.plugins(group).values()}
    return content_hash(code_of(map(_package, modules)))


def cell_code(suite: Suite, cell: Cell) -> Code:
    """Returns the code that measures and scores a cell: this package, and every plug-in that its settings name."""
    exposure = cell.exposure
    named = [exposure.defense, exposure.channel.plugin, exposure.threat_model, cell.attack, *_scored_by(suite)]
    return code_of(_packages([one.model_dump() for one in named]))


def scoring_code(suite: Suite) -> Code:
    """Returns the code that scores reconstructions: this package, and the plug-ins of task, metrics and judge."""
    return code_of(_packages([one.model_dump() for one in _scored_by(suite)]))


def _scored_by(suite: Suite) -> list[PluginConfig]:
    return [suite.task, *suite.metrics, *([] if suite.judge is None else [suite.judge])]


def code_of(packages: Iterable[str]) -> Code:
    """Returns the code of this package and of others, and of all that they import."""
    return dict(_code_of(frozenset(packages)))


def forget() -> None:
    """Forgets what was read of files: they are read again, for whoever edits code beside a living process."""
    for known in (code_digest, _code_of, _read, _places):
        known.cache_clear()


def differences(old: Code, new: Code) -> str:
    """Says in which packages two states of the code differ; empty where in none."""
    found = [
        f"{name} ({old.get(name, 'not there')}, now {new.get(name, 'not there')})"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    return ", ".join(found)


def _package(module: str) -> str:
    """Returns the top-level package of a module; of this package's own modules their folder."""
    return ".".join(module.split(".")[: 2 if module.startswith(f"{OWN}.") else 1])


def _packages(settings: object) -> set[str]:
    """Returns the packages of the plug-ins that settings name, at whatever depth."""
    names = set(_words(settings))
    groups = [registry.plugins(group) for group in (*GROUPS, *SCORING)]
    return {_package(known[name].value.split(":")[0]) for known in groups for name in names & set(known)}


def _words(settings: object) -> Iterator[str]:
    if isinstance(settings, str):
        yield settings
    elif isinstance(settings, dict):
        for value in settings.values():
            yield from _words(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _words(value)


@cache
def _code_of(packages: frozenset[str]) -> tuple[tuple[str, str], ...]:
    found: Code = dict(package_versions())
    # The front door only names what lies in the folders; `harness` is always read.
    waiting, seen = [f"{OWN}.harness", *sorted(packages)], {OWN, *PRESENTATION}
    while waiting:
        top = waiting.pop()
        if top in seen or top in sys.stdlib_module_names:
            continue
        seen.add(top)
        # Whatever lies among installed packages has a version, unless it is a plug-in: those are edited in place.
        if (
            top not in packages
            and not top.startswith(f"{OWN}.")
            and any("site-packages" in place.parts for place in _places(top))
        ):
            name, number = _distribution(top)
            found[name] = number
        elif _files(top):
            found[top], imported = _read(top)
            waiting += imported
    return tuple(sorted(found.items()))


@cache
def _distribution(top: str) -> tuple[str, str]:
    """Returns the name and the version of the distribution that installed a top-level package."""
    name = _DISTRIBUTIONS.get(top, top)
    try:
        return name, version(name)
    except PackageNotFoundError:
        names = packages_distributions().get(top) or [top]
    try:
        return names[0], version(names[0])
    except PackageNotFoundError:
        return top, "of no distribution"


@cache
def _read(top: str) -> tuple[str, tuple[str, ...]]:
    """Returns a digest over the files of a package, and the names of those that it imports."""
    digest, imported = hashlib.sha256(), set()
    for name, path in _files(top):
        try:
            data = path.read_bytes()
        except OSError:
            continue
        digest.update(f"{len(name)}:{name}{len(data)}:".encode())
        digest.update(data)
        if path.suffix == ".py":
            imported |= {match.decode() for match in _IMPORT.findall(data)}
    return digest.hexdigest()[:16], tuple(sorted(imported))


@cache
def _places(top: str) -> tuple[Path, ...]:
    """Returns the folders of a top-level package, or the one file of a lone module; nothing for what is not there."""
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return ()
    if spec is None:
        return ()
    if spec.submodule_search_locations:
        return tuple(map(Path, spec.submodule_search_locations))
    return () if spec.origin is None or not Path(spec.origin).is_file() else (Path(spec.origin),)


def _files(top: str) -> list[tuple[str, Path]]:
    """Returns the files of a package that decide what it computes, or the one file of a lone module."""
    found = []
    for place in _places(top):
        if place.is_file():
            return [(top, place)]
        found += [
            (path.relative_to(place).as_posix(), path)
            for path in place.rglob("*")
            if path.suffix not in _NO_CODE and path.name not in _WRITTEN_OF_RUNS
            if "__pycache__" not in path.parts and path.is_file()
        ]
    return sorted(found)
