"""The record of what was read from a user's folder or archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from leakgauge.benchmarks.tasks.own_images.image_files import ImageFiles
from leakgauge.benchmarks.tasks.own_images.image_listing import shown, summed_suffixes
from leakgauge.harness.contracts.reading import CopySearch, Preprocessing, Reading, Weights, class_counts
from leakgauge.harness.values.images import ImageSet


def folder_reading(
    files: ImageFiles,
    splits: Mapping[str, ImageSet],
    labels: list[int] | None,
    left_out: Counter[str],
    *,
    converted: Counter[str],
    copies: CopySearch,
    preprocessing: Preprocessing,
    weights: Weights,
) -> Reading:
    """Puts together what was read.

    Args:
        files: What was listed.
        splits: The splits.
        labels: The label of each class folder; None where the images carry none.
        left_out: Images that are listed but in no split, by cause.
        converted: What was done to images while they were decoded.
        copies: Copies looked for and found.
        preprocessing: What is done to every image.
        weights: The victim.
    """
    named = None if files.classes is None or labels is None else dict(zip(labels, files.classes, strict=True))
    classes = class_counts(splits, named)
    absent = [name for name, of_class in classes.items() if not of_class["evaluation"]]
    count = "1 class has" if len(absent) == 1 else f"{len(absent)} classes have"
    said = (f"{count} no image in the evaluation split: {absent[0]!r}",) if absent else ()
    return Reading(
        source=shown(str(files.path)),
        splits={name: len(images) for name, images in splits.items()},
        preprocessing=preprocessing,
        weights=weights,
        classes=classes,
        labels_from=files.labels_from,
        listed=len(files) + files.listing.skipped.total(),
        skipped=summed_suffixes(files.listing.skipped + left_out),
        not_entered=dict(files.listing.not_entered),
        converted=dict(+converted),
        copies=copies,
        warnings=said,
    )
