"""Matches the class folders of a user's images with the classes of a pretrained head."""

from __future__ import annotations

from collections.abc import Sequence

from timm.data import ImageNetInfo, infer_imagenet_subset


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _by_number(folders: Sequence[str], classes: int) -> list[int] | None:
    if not all(folder.isascii() and folder.isdigit() for folder in folders):
        return None
    numbers = [int(folder) for folder in folders]
    return numbers if len(set(numbers)) == len(numbers) and max(numbers) < classes else None


def _by_imagenet_name(folders: Sequence[str], classes: int) -> list[int] | None:
    subset = infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    wnids = {wnid: i for i, wnid in enumerate(info.label_names())}
    names: dict[str, set[int]] = {}
    for i, description in enumerate(info.label_descriptions()):
        for name in (description, *description.split(",")):
            names.setdefault(_plain(name), set()).add(i)
    found: list[int] = []
    for folder in folders:
        candidates = {wnids[folder]} if folder in wnids else names.get(_plain(folder), set())
        if len(candidates) != 1:  # unknown, or a name that two classes share
            return None
        found.append(candidates.pop())
    return found if len(set(found)) == len(found) else None


def match_head(folders: Sequence[str], classes: int, *, certain: bool = False) -> list[int] | None:
    """Finds the head's class of every folder.

    Args:
        folders: Names of the class folders.
        classes: Classes of the head.
        certain: Take numbers for classes only where there are as many folders as classes; ten folders named 0 to 9
            need not be the first ten of a thousand classes.

    Returns:
        Class numbers in the order of ``folders``, or None where not every folder has one of its own. Folders are
        named by number, by ImageNet's WordNet identifier or by ImageNet's class name.
    """
    if classes < 1:
        return None
    numbers = _by_number(folders, classes) if not certain or len(folders) == classes else None
    return numbers or _by_imagenet_name(folders, classes)
