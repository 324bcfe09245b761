"""What was read: a record of a task's data, preprocessing and weights, stored with a run, so that a reader sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import ClassVar, Protocol

from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.system.json_data import Json
from leakgauge.harness.values.images import ImageSet, SplitName

UNNAMED = "not stated"


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image between its file and the victim.

    Args:
        image_px: Side of the square images, in pixels.
        crop_share: Side of the square that is cut out, as a share of the shorter side of the picture; None: not stated.
        interpolation: Filter by which it is reduced to ``image_px``.
        background: Colour behind transparent pixels.
        mean: Per-channel mean that the victim subtracts from values in [0, 1].
        std: Per-channel deviation that it divides by.
        source: Where these settings come from, in words.
    """

    image_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_share: float | None = None
    interpolation: str = UNNAMED
    background: str = UNNAMED
    source: str = UNNAMED


@dataclass(frozen=True)
class CopySearch:
    """Which copies of an image were looked for before splits were made, and what was found.

    Args:
        looked_for: The kinds of copy, in words.
        found: Images by what was found, in words: ``exact copies left out``, say.
        grouped_by: What else keeps images together, in words; empty where nothing does.
    """

    looked_for: tuple[str, ...] = ()
    found: Mapping[str, int] = field(default_factory=dict)
    grouped_by: str = ""


@dataclass(frozen=True)
class Weights:
    """The victim.

    Args:
        victim: Its name.
        sha256: Its weights' hash.
        source: Where they come from.
        dtype: Their number type.
        decoding: How it writes answers, where it does.
    """

    victim: str
    sha256: str
    source: str = UNNAMED
    dtype: str = UNNAMED
    decoding: str = ""


@dataclass(frozen=True)
class Undefended:
    """How good the unmodified victim is at the task, measured on the evaluation images.

    Args:
        quality_name: What is measured.
        quality: Its mean over the images, in [0, 1].
        images: How many they are.
        chance: What the best constant answer reaches on them; None where that has no meaning.
        warning: Why this victim should not be believed; empty where nothing speaks against it.
    """

    quality_name: str
    quality: float
    images: int
    chance: float | None = None
    warning: str = ""


@dataclass(frozen=True)
class Reading:
    """What a task read.

    Args:
        source: Where the images come from.
        splits: Images a split.
        preprocessing: What is done to an image.
        weights: The victim.
        classes: For each class its images a split; empty where the images carry no labels.
        labels_from: What decided the classes, in words.
        listed: Files or images found; None where nothing is listed.
        skipped: How many of them were left out, by cause.
        not_entered: Folders and links that were not followed, by cause.
        converted: Images to which something was done while they were decoded, by what: ``turned upright``, say.
        copies: Copies looked for and found.
        undefended: How good the victim is without a defense; the harness measures it.
        warnings: What a reader must know before believing a number.
    """

    source: str
    splits: Mapping[str, int]
    preprocessing: Preprocessing
    weights: Weights
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    labels_from: str = ""
    listed: int | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    not_entered: Mapping[str, int] = field(default_factory=dict)
    converted: Mapping[str, int] = field(default_factory=dict)
    copies: CopySearch = CopySearch()
    undefended: Undefended | None = None
    warnings: tuple[str, ...] = ()

    @property
    def used(self) -> int:
        """Images in all splits."""
        return sum(self.splits.values())

    def all_warnings(self) -> tuple[str, ...]:
        """Returns the warnings, that about the victim included."""
        more = self.undefended.warning if self.undefended is not None else ""
        return (*self.warnings, more) if more else self.warnings

    def to_json(self) -> dict[str, Json]:
        """Returns the record as run.json holds it, under ``read``."""
        return {**asdict(self), "used": self.used, "warnings": list(self.all_warnings())}


def class_counts(splits: Mapping[str, ImageSet], names: Mapping[int, str] | None = None) -> dict[str, dict[str, int]]:
    """Counts the images of every class in every split.

    Args:
        splits: The splits; those without labels count for nothing.
        names: Names of the classes; a number that has none stands for itself.

    Returns:
        By class, in the order of the numbers, and by split; empty where no split carries labels.
    """
    counts: dict[int, dict[str, int]] = {}
    for split, images in splits.items():
        for label in [] if images.labels is None else images.labels.tolist():
            of_class = counts.setdefault(label, dict.fromkeys(splits, 0))
            of_class[split] += 1
    return {(names or {}).get(label, str(label)): counts[label] for label in sorted(counts)}


def weights_of(victim: Victim, source: str = UNNAMED) -> Weights:
    """Returns what is said of a victim, whose weights come from ``source``."""
    dtype = str(victim.dtype).removeprefix("torch.")
    return Weights(victim.name, victim.weights_hash, source, dtype, victim.decoding)


class Readable(Protocol):
    """What a plain record is made of: a task."""

    name: ClassVar[str]
    version: ClassVar[int]

    def victim(self) -> Victim:
        """Returns the victim."""

    def split(self, name: SplitName) -> ImageSet:
        """Returns the images of a split."""

    def input_px(self) -> int:
        """Returns the side of the images."""


def plain_reading(task: Readable, names: Iterable[SplitName]) -> Reading:
    """Returns what can be told of a task that says nothing itself: its splits, their labels, its victim.

    Args:
        task: The task.
        names: Its splits.
    """
    victim, splits = task.victim(), {str(name): task.split(name) for name in names}
    return Reading(
        source=f"task {task.name!r}, version {task.version}",
        splits={name: len(images) for name, images in splits.items()},
        preprocessing=Preprocessing(task.input_px(), victim.mean, victim.std),
        weights=weights_of(victim),
        classes=class_counts(splits),
    )
