"""Settles how answers about a user's images are scored: by the model's head, by a probe, or by agreement."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from leakgauge.benchmarks.tasks.own_images.head_classes import match_head
from leakgauge.benchmarks.tasks.own_images.image_splits import PROBE_SPLIT
from leakgauge.harness.errors import ConfigError

Library = Literal["timm", "transformers"]
Quality = Literal["auto", "head", "probe", "agreement"]


@dataclass(frozen=True)
class Scoring:
    """How answers are scored: by labels or by agreement, and the label of each class folder."""

    kind: Literal["head", "probe", "agreement"]
    folder_labels: list[int] | None


def settle(
    folders: tuple[str, ...] | None, classes: int, wanted: Quality, library: Library, per_split: Collection[str]
) -> Scoring:
    """Settles ``quality``.

    Args:
        folders: Names of the class folders, None without labels.
        classes: Classes of the model's head.
        wanted: The option of the task.
        library: Where the model comes from.
        per_split: The splits that images were asked for.

    Raises:
        ConfigError: The labels or the model do not allow what was asked for.
    """
    scoring = _settled(folders, classes, wanted, library)
    if PROBE_SPLIT in per_split and scoring.kind != "probe":
        what = f"only a probe is fitted to images of its own, but the quality is {scoring.kind!r}"
        raise ConfigError(what, where=f"per_split.{PROBE_SPLIT}", hint="leave it out, or set `quality: probe`")
    return scoring


def _settled(folders: tuple[str, ...] | None, classes: int, wanted: Quality, library: Library) -> Scoring:
    if folders is None:
        if wanted in {"head", "probe"}:
            what = f"{wanted!r} needs labels, but the images do not lie in class folders"
            raise ConfigError(what, where="quality", hint="sort them into CLASS/ folders, or take `agreement`")
        return Scoring("agreement", None)
    own = list(range(len(folders)))
    matched = match_head(folders, classes, certain=wanted == "auto")
    if wanted == "agreement":
        return Scoring("agreement", own)
    if matched and wanted != "probe":
        return Scoring("head", matched)
    if wanted == "head":
        what = f"the class folders do not match the {classes} classes of the model's head"
        other = "probe" if library == "timm" else "agreement"
        raise ConfigError(what, where="quality", hint=f"rename them to class numbers, or take `{other}`")
    if library == "transformers":  # no probe to fall back on
        return Scoring("agreement", own)
    return Scoring("probe", own)
