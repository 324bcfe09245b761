"""Task ``tensors``: a user's own model and images as they stood in memory, written down by ``leakgauge.measure``."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from leakgauge.benchmarks.tasks.answers import Answers
from leakgauge.benchmarks.tasks.own_images.image_listing import shown
from leakgauge.benchmarks.tasks.own_images.image_splits import (
    PROBE_SPLIT,
    assign,
    check_counts,
    split_counts,
    stratified_order,
)
from leakgauge.benchmarks.tasks.own_images.usable_images import usable
from leakgauge.benchmarks.tasks.tensor_files import TensorFiles
from leakgauge.benchmarks.victims.described_vit import rebuild
from leakgauge.harness.contracts.reading import CopySearch, Preprocessing, Reading, class_counts, weights_of
from leakgauge.harness.contracts.task import Task
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import ConfigError, DataError, suggest
from leakgauge.harness.suite.options import Count, FilePath
from leakgauge.harness.values.images import SPLITS, ImageSet, SplitName

SURPLUS = "usable, but in no split"


class Tensors(Task):
    """A user's own model and images, from a folder that ``leakgauge.measure`` wrote; nothing in it is trusted.

    Exact copies are left out but for one, and copies with contradicting labels altogether; near duplicates share a
    split, and a group for intervals. With labels and a head quality is top-1 accuracy, else agreement with the
    undefended model.

    Args:
        path: The folder.
        per_split: Images a split; by default shares of all.
    """

    name = "tensors"
    version = 1

    def __init__(self, path: FilePath, per_split: Mapping[str, Count] | None = None) -> None:
        check_counts(per_split or {})
        if PROBE_SPLIT in (per_split or {}):
            raise ConfigError("no probe is fitted here", where=f"per_split.{PROBE_SPLIT}", hint="leave it out")
        self.path, self.per_split = Path(path).expanduser(), dict(per_split or {})
        if not self.path.is_dir():
            raise DataError("no such folder", where=str(self.path), hint="let leakgauge.measure() write it")
        self.left_out: Counter[str] = Counter()

    @cached_property
    def _files(self) -> TensorFiles:
        return TensorFiles.read(self.path)

    @cached_property
    def _answers(self) -> Answers:
        labelled = self._files.labels is not None and self._files.classes > 0
        return Answers(self.victim, lambda: self.split("calibration"), self._files.classes, labelled, str(self.path))

    @cached_property
    def _sets(self) -> dict[str, ImageSet]:
        files = self._files
        own = None if files.groups is None else list(map(str, files.groups.tolist()))
        said = "" if own is None else "the groups given"
        images, left, self._copies = usable(ImageSet.from_pixels(files.pixels, files.labels), own, said)
        self.left_out = +left
        divided = self._divided(images)
        self.left_out[SURPLUS] = len(images) - sum(map(len, divided.values()))
        sets = {name: images.select(rows) for name, rows in divided.items()}
        if files.auxiliary is not None:
            sets["attacker"] = self._auxiliary(files.auxiliary, images)
        return {name: sets[name] for name in SPLITS}

    def _divided(self, images: ImageSet) -> dict[str, list[int]]:
        """Returns the rows of each split; none for the attacker where it has images of its own."""
        own = self._files.auxiliary is not None
        try:
            # Who brings the attacker's images has all the others for the rest: they are divided as if it had one.
            counts = split_counts(
                len(images) + own, {**self.per_split, **({"attacker": 1} if own else {})}, probe=False
            )
            if own:
                del counts["attacker"]
            classes = None if images.labels is None else images.labels.tolist()
            assert images.groups is not None
            clusters = stratified_order(images.ids, classes, images.groups.tolist())
            rest = None if own or "attacker" in self.per_split else "attacker"
            return assign(clusters, counts, rest)
        except DataError as error:
            raise DataError(error.what, where=str(self.path), hint=error.hint) from error

    def _auxiliary(self, pixels: Tensor, others: ImageSet) -> ImageSet:
        """Returns the attacker's own images, each content once."""
        images = ImageSet.from_pixels(pixels).distinct()
        shared = set(images.ids) & set(others.ids)
        if shared:
            raise DataError(
                f"{len(shared)} of the auxiliary images are among the images under attack",
                where=str(self.path),
                hint="give the attacker images of its own",
            )
        return images

    def reading(self) -> Reading:
        """Returns what was read, and what was passed over and why."""
        files, sets = self._files, self._sets
        names = None if files.class_names is None else dict(enumerate(files.class_names))
        return Reading(
            source=shown(str(self.path)),
            splits={name: len(images) for name, images in sets.items()},
            preprocessing=Preprocessing(self.input_px(), files.mean, files.std, source=files.normalised_by),
            weights=weights_of(self.victim(), str(self.path)),
            classes=class_counts(sets, names),
            labels_from="the labels given" if files.labels is not None else "",
            listed=len(files.pixels),
            skipped=dict(self.left_out),
            copies=self._copies if self._sets else CopySearch(),
        )

    @cached_property
    def _victim(self) -> Victim:
        files = self._files
        model: Any = rebuild(files.model, files.weights)
        px = int(files.pixels.shape[2])
        if tuple(model.patch_embed.img_size) != (px, px) or int(model.num_classes) != files.classes:
            raise DataError("the model does not fit the images", where=str(self.path), hint="write them again together")
        digest = hashlib.sha256(files.weights)
        digest.update(repr((sorted(files.model["arguments"].items()), files.model["kind"])).encode())
        digest.update(repr((files.mean, files.std)).encode())
        return Victim(model, files.mean, files.std, digest.hexdigest()[:16], files.name)

    def victim(self) -> Victim:
        """Returns the model, built anew."""
        return self._victim

    def input_px(self) -> int:
        """Side of the images."""
        return int(self._files.pixels.shape[2])

    def split(self, name: SplitName) -> ImageSet:
        """Returns the images of a split."""
        if name not in SPLITS:
            raise ConfigError(f"unknown split {name!r}", hint=suggest(name, [*SPLITS]))
        return self._sets[name]

    def target(self, images: ImageSet) -> Tensor:
        """Returns class numbers (B,), or for agreement the undefended model's outputs (B, C)."""
        return self._answers.target(images)

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns (B,) 1 where the top class is right, else 0; without a head the centred cosine, 0 if negative."""
        return self._answers.quality(output, target)

    @property
    def quality_name(self) -> str:
        """What ``quality`` measures."""
        return "top-1 accuracy (own head)" if self._answers.labelled else self._answers.agreement_name
