"""Tells from the names of folders which class an image is of, and refuses to guess where that can be read two ways."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from leakgauge.benchmarks.tasks.own_images.image_listing import Listing
from leakgauge.harness.errors import DataError

ClassFolders = Literal["auto", "first", "innermost", "flat"]
SPLIT_NAMES = frozenset(
    "train training trainset val valid validation test testing testset dev eval evaluation holdout".split()  # noqa: SIM905
)
PART_NAMES = frozenset(
    "image images img imgs jpegimages mask masks label labels annotation annotations segmentation".split()  # noqa: SIM905
)
SHOWN = 4


class Classes(NamedTuple):
    """Class names in order, None without labels; the number of each image; and what decided, in words."""

    names: tuple[str, ...] | None
    numbers: tuple[int, ...]
    decided_by: str


def classes_of(names: Sequence[str], listing: Listing, rule: ClassFolders, *, packed: bool, where: str) -> Classes:
    """Names the class of every image.

    The class is the first folder below the root. An archive with one folder at its top has its root there, as
    archivers wrap what they pack; a folder with one folder in it is only followed where no class depends on it.
    ``auto`` refuses what can be read in two ways, ``first`` and ``innermost`` say which way is meant.

    Args:
        names: Names of the images, at least one.
        listing: What else was found.
        rule: The option of the task.
        packed: Whether it is an archive.
        where: The folder or archive, for messages.

    Raises:
        DataError: The layout is ambiguous, or a class would be lost with the images that are not read.
    """
    if rule == "flat":
        return Classes(None, (), "no labels, as `classes: flat` asks")
    paths = [PurePosixPath(name).parts for name in names]
    root = _root(paths) if packed or rule == "auto" else ()
    below = [parts[len(root) : -1] for parts in paths]
    said = f"the first folder below {'/'.join(root)}/" if root else "the first folder below the root"
    chosen = [(parts[-1] if rule == "innermost" else parts[0]) if parts else "" for parts in below]
    classes = tuple(sorted(set(chosen)))
    _refuse_lost(classes, listing, root, rule, where)
    if root and not packed and any(below):
        inner = "/".join(root)
        raise DataError(
            f"its one folder {inner!r} holds folders, {_some({parts[0] for parts in below if parts})}: classes or not?",
            where=where,
            hint=f"give `path: {where}/{inner}`, or `classes: flat` for no labels",
        )
    if rule == "auto":
        _refuse_doubt(names, below, classes, where)
    if "" in classes and len(classes) > 1:
        first = {bool(label): name for label, name in zip(chosen, names, strict=True)}
        raise DataError(
            f"some images lie in class folders and others beside them, {first[True]!r} and {first[False]!r}",
            where=where,
            hint="put all into one folder (no labels) or each into CLASS/ (labels), or set `classes: flat`",
        )
    if len(classes) < 2 and rule != "auto":
        what = f"`classes: {rule}` finds no two classes, only {classes[0] or 'images in no folder'!r}"
        raise DataError(what, where=where, hint="check `path`, or set `classes: flat` for no labels")
    if len(classes) < 2:
        return Classes(None, (), "no labels, as all images lie in one folder")
    number = {name: i for i, name in enumerate(classes)}
    return Classes(
        classes, tuple(number[label] for label in chosen), "the innermost folder" if rule == "innermost" else said
    )


def _root(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Returns the folders that all images share."""
    shared = paths[0][:-1]
    for parts in paths:
        while shared != parts[: len(shared)] or len(parts) == len(shared):
            shared = shared[:-1]
    return shared


def _some(names: set[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(map(repr, listed[:SHOWN])) + more


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _refuse_doubt(names: Sequence[str], below: Sequence[tuple[str, ...]], classes: tuple[str, ...], where: str) -> None:
    """Raises DataError where the folders can be read in two ways."""
    for known, kind in ((SPLIT_NAMES, "splits"), (PART_NAMES, "parts of a data set")):
        alike = {name for name in classes if _folded(name) in known}
        if len(alike) > 1:
            raise DataError(
                f"the folders {_some(alike)} are named like {kind}, not like classes",
                where=where,
                hint="give one of them as `path`, or set `classes: innermost`, `first` or `flat`",
            )
    same: dict[str, str] = {}
    for name in classes:
        other = same.setdefault(_folded(name), name)
        if other != name:
            what = f"the class names {other!r} and {name!r} differ in case or spelling only"
            raise DataError(what, where=where, hint="rename one of them, or set `classes: first`")
    owners: dict[str, set[str]] = {}
    for parts in below:
        for inner in parts[1:]:
            owners.setdefault(_folded(inner), set()).add(parts[0])
    # One inner folder of the same name in every class, as in CLASS/images/, tells nothing apart.
    if len(owners) == 1 and all(len(parts) > 1 for parts in below):
        return
    repeated = sorted(inner for inner, of in owners.items() if len(of) > 1)
    if repeated:
        examples = sorted({name.rpartition("/")[0] for name in names if repeated[0] in map(_folded, name.split("/"))})
        raise DataError(
            f"folders of one name lie under several others, {_some(set(examples[:2]))}: which of them is the class?",
            where=where,
            hint="set `classes: first` (the outer folder), `innermost` (the inner one) or `flat` (no labels)",
        )


def _refuse_lost(
    classes: tuple[str, ...], listing: Listing, root: tuple[str, ...], rule: ClassFolders, where: str
) -> None:
    """Raises DataError where passing files over takes a whole class away, and with it changes what quality means."""
    few = len(classes) < 2
    lost: dict[str, str] = {}
    hidden = {_parent(name): "hidden" for name in listing.hidden} if few else {}
    for folder, cause in {**listing.empty_folders(), **hidden}.items():
        parts = PurePosixPath(folder).parts
        beside = parts[: len(root)] != root[: len(parts)]
        if beside:
            lost.setdefault(next(p for k, p in enumerate(parts) if root[k] != p), cause)
        elif len(parts) > len(root) and classes != ("",):
            name = parts[-1] if rule == "innermost" else parts[len(root)]
            if name not in classes:
                lost.setdefault(name, cause)
    if lost:
        name, cause = sorted(lost.items())[0]
        more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise DataError(
            f"the folder {name!r} gives no image ({cause}){more}, so that a class would be lost",
            where=where,
            hint="convert its files, move it out of `path`, or set `classes: flat`",
        )


def _parent(name: str) -> str:
    return str(PurePosixPath(name).parent)
