"""Task ``imagefolder``: a user's own images, and any pretrained timm or transformers vision model as the victim."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from leakgauge.benchmarks.tasks.answers import Answers
from leakgauge.benchmarks.tasks.own_images.class_folders import ClassFolders
from leakgauge.benchmarks.tasks.own_images.folder_model import FolderModel
from leakgauge.benchmarks.tasks.own_images.folder_reading import folder_reading
from leakgauge.benchmarks.tasks.own_images.folder_scoring import Library, Quality, Scoring, settle
from leakgauge.benchmarks.tasks.own_images.image_files import ImageFiles
from leakgauge.benchmarks.tasks.own_images.image_groups import check_groups, groups_of
from leakgauge.benchmarks.tasks.own_images.image_splits import (
    PROBE_SPLIT,
    assign,
    check_counts,
    split_counts,
    stratified_order,
)
from leakgauge.benchmarks.tasks.own_images.model_options import check_timm_options, check_transformers_options
from leakgauge.benchmarks.tasks.own_images.usable_images import usable
from leakgauge.benchmarks.victims.loading.input_settings import Interpolation, MeanOption, StdOption
from leakgauge.benchmarks.victims.loading.linear_probe import PENALTY, attach_probe
from leakgauge.benchmarks.victims.loading.loaded_model import LoadedModel
from leakgauge.harness.contracts.reading import Reading, weights_of
from leakgauge.harness.contracts.task import Task
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import ConfigError, DataError, suggest
from leakgauge.harness.suite.options import ColourOption, Count, FileOption, FilePath, KeptShare
from leakgauge.harness.values.decoding import ENLARGED, as_colour, read_picture
from leakgauge.harness.values.images import SPLITS, ImageSet, SplitName

SPARE_SHARE, SPARE_FILES = 0.1, 64
"""Files decoded beyond the number needed, for those that turn out broken or duplicate."""
NOT_NEEDED, SURPLUS = "not decoded, as `per_split` needs fewer", "usable, but in no split"


class ImageFolder(Task):
    """Images from a folder or a zip archive, ``CLASS/name.jpg`` or flat, scored with a pretrained model.

    Nothing is read before it is needed. Exact copies are left out but for one, and copies with contradicting labels
    altogether; near duplicates share a split, and a group for intervals. ``left_out`` counts what was left out.

    Args:
        path: Folder or zip archive.
        model: Name of a timm model; with ``library: transformers`` a folder as ``save_pretrained`` writes it, or with
            ``pretrained`` a name on the hub.
        library: Where the model comes from.
        checkpoint: Weights of a timm model, a .safetensors file or a torch file of plain tensors.
        pretrained: Download the weights that timm names instead, or the model from the hub.
        image_px: Side of the images that the model takes; None takes its own.
        quality: ``head`` is top-1 accuracy of the model's own head, ``probe`` of a linear probe fitted to a split of
            its own (timm only), ``agreement`` is with the undefended model and needs no labels; ``auto`` takes the
            first that fits.
        per_split: Images a split; by default shares of all.
        skip_broken: Leave out images that cannot be decoded.
        pos_embed_antialias: Whether the position embedding of a timm model is antialiased where it must be resized.
        background: Colour behind transparent pixels: a name, ``#rrggbb`` or three numbers.
        classes: Which folder names the class: ``first`` below the root, ``innermost``, or none (``flat``). ``auto``
            takes the first, and refuses layouts that can be read in another way too (``class_folders``).
        groups: Images that depend on one another, and so share a split and a cluster of intervals: ``pattern``, a
            regular expression over file names, or ``csv``, a file with columns ``file`` and ``group``.
        shifted: Folder or zip archive of images of another domain, for attackers with ``auxiliary: {domain: shifted}``.
        mean: Per-channel mean that the model was trained with, of images in [0, 1]; None takes what stands beside the
            checkpoint, else what the model's name or family suggests, which the victim's name then says.
        std: Per-channel deviation, likewise.
        interpolation: Filter that reduces pictures; None takes the one stated beside the checkpoint, else bicubic.
        crop_share: Side of the centre square that is read, as a share of the shorter side; None reads all of it.
    """

    name = "imagefolder"
    version = 3

    def __init__(
        self,
        path: FilePath,
        model: Annotated[str, FileOption(where=("library", "transformers"))],
        checkpoint: FilePath | None = None,
        pretrained: bool = False,
        image_px: Count | None = None,
        quality: Quality = "auto",
        per_split: Mapping[str, Count] | None = None,
        skip_broken: bool = False,
        pos_embed_antialias: bool = True,
        library: Library = "timm",
        background: ColourOption = "white",
        classes: ClassFolders = "auto",
        groups: Mapping[str, str] | None = None,
        shifted: FilePath | None = None,
        mean: MeanOption | None = None,
        std: StdOption | None = None,
        interpolation: Interpolation | None = None,
        crop_share: KeptShare | None = None,
    ) -> None:
        if groups is not None:
            check_groups(groups)
        check_counts(per_split or {})
        self.library, self.pretrained, self._wanted = library, pretrained, quality
        if library == "timm":
            check_timm_options(model, checkpoint, pretrained=pretrained)
        else:
            odd = {"checkpoint": bool(checkpoint), "pos_embed_antialias": not pos_embed_antialias}
            model = check_transformers_options(model, odd, pretrained=pretrained, probe=quality == "probe")
        self.path = Path(path).expanduser()
        self.checkpoint = Path(checkpoint).expanduser() if checkpoint else None
        self._shifted = Path(shifted).expanduser() if shifted else None
        for given in (self.path, self.checkpoint, self._shifted):
            if given is not None and not given.exists():
                raise DataError("no such file or folder", where=str(given), hint="check the path")
        self.model, self.image_px, self.per_split = model, image_px, dict(per_split or {})
        self.skip_broken, self.pos_embed_antialias = skip_broken, pos_embed_antialias
        self.background = as_colour(background)
        fed = (image_px, pos_embed_antialias, mean, std, interpolation, crop_share)
        self._network = FolderModel(library, model, self.checkpoint, pretrained, *fed)
        self.classes, self.groups = classes, dict(groups or {})
        self.left_out: Counter[str] = Counter()
        self._done: Counter[str] = Counter()

    @cached_property
    def _files(self) -> ImageFiles:
        return ImageFiles.find(self.path, self.classes)

    @property
    def _loaded(self) -> LoadedModel:
        return self._network.loaded

    @cached_property
    def _scoring(self) -> Scoring:
        """Settles ``quality``; raises ConfigError where the labels or the model do not allow what was asked for."""
        return settle(self._files.classes, self._loaded.classes, self._wanted, self.library, self.per_split)

    def _chosen_rows(self) -> list[int]:
        """Picks the files to decode: all of them, or where all counts are given not many more than needed."""
        names = [*SPLITS, PROBE_SPLIT] if self._scoring.kind == "probe" else SPLITS
        files = self._files
        if not all(name in self.per_split for name in names):
            return list(range(len(files)))
        needed = sum(self.per_split.values())
        needed += int(SPARE_SHARE * needed) + SPARE_FILES
        if needed >= len(files):
            return list(range(len(files)))
        return [row for rows in stratified_order(files.digests(), files.labels or None) for row in rows][:needed]

    @cached_property
    def _sets(self) -> dict[str, ImageSet]:
        """Decodes the images once and divides them."""
        files, scoring = self._files, self._scoring
        rows = self._chosen_rows()
        pixels, kept, broken = files.load(rows, self._loaded.px, self._read, skip_broken=self.skip_broken)
        labels = None
        if scoring.folder_labels is not None:
            labels = torch.tensor([scoring.folder_labels[files.labels[row]] for row in kept], dtype=torch.long)
        own = groups_of([files.names[row] for row in kept], self.groups) if self.groups and kept else None
        images, left, self._copies = usable(ImageSet.from_pixels(pixels, labels), own, _said(self.groups))
        self.left_out = broken + left + Counter({NOT_NEEDED: len(files) - len(rows)})
        self._check_classes(images, rows)
        probe = scoring.kind == "probe"
        try:
            counts = split_counts(len(images), self.per_split, probe=probe)
            classes = None if images.labels is None else images.labels.tolist()
            assert images.groups is not None
            clusters = stratified_order(images.ids, classes, images.groups.tolist())
            divided = assign(clusters, counts, None if "attacker" in self.per_split else "attacker")
        except DataError as error:
            raise DataError(error.what, where=str(self.path), hint=error.hint) from error
        self.left_out[SURPLUS] = len(images) - sum(map(len, divided.values()))
        return {name: images.select(positions) for name, positions in divided.items()}

    def _read(self, data: bytes) -> Tensor:
        """Returns a file's pixels, and counts what had to be done to it."""
        picture = read_picture(data, self.background)
        self._done.update(picture.done)
        self._done[ENLARGED] += min(picture.image.size) < self._loaded.px
        return self._network.square(picture.image)

    def _check_classes(self, images: ImageSet, rows: list[int]) -> None:
        """Raises DataError where leaving images out took all of a class: quality would mean something else."""
        folders, numbers = self._files.classes, self._scoring.folder_labels
        if folders is None or numbers is None:
            return
        assert images.labels is not None
        there = set(images.labels.tolist())
        lost = [
            folders[label] for label in sorted({self._files.labels[row] for row in rows}) if numbers[label] not in there
        ]
        if lost:
            raise DataError(
                f"no image of class {lost[0]!r} is usable ({_causes(self.left_out)})",
                where=str(self.path),
                hint="mend its files, or move the folder out of `path`",
            )

    def reading(self) -> Reading:
        """Returns what was read of the files, and what was passed over and why."""
        victim = self._victim
        return folder_reading(
            self._files,
            self._sets,
            self._scoring.folder_labels,
            self.left_out,
            converted=self._done,
            copies=self._copies,
            preprocessing=self._network.preprocessing(self.background),
            weights=weights_of(victim, str(self.checkpoint or self.model)),
        )

    @cached_property
    def _victim(self) -> Victim:
        loaded, digest = self._loaded, self._loaded.weights_hash
        victim = Victim(loaded.model, loaded.mean, loaded.std, digest, self._network.name)
        if self._scoring.kind != "probe":
            return victim
        assert self._files.classes is not None
        images, classes = self._sets[PROBE_SPLIT], len(self._files.classes)
        assert images.labels is not None
        missing = sorted(set(range(classes)) - set(images.labels.tolist()))
        if missing:
            raise DataError(
                f"class {self._files.classes[missing[0]]!r} has no image in the probe's split of {len(images)}",
                where=str(self.path),
                hint="add images of it, or raise `per_split.victim`",
            )
        attach_probe(victim, images, classes)
        # What decides the probe, not its values: these differ in the last bits between machines.
        digest = hashlib.sha256(f"{digest}|{images.digest()}|{PENALTY}|{self.version}".encode()).hexdigest()[:16]
        return replace(victim, weights_hash=digest, name=f"{victim.name}, linear probe")

    def victim(self) -> Victim:
        """Returns the model; with quality ``probe`` its head is the probe."""
        return self._victim

    def read_image(self, data: bytes) -> Tensor:
        """Returns an image file as the model is shown it, (3, px, px) uint8."""
        return self._network.square(read_picture(data, self.background).image)

    def input_px(self) -> int:
        """Side of the images; no image is read to find it."""
        return self._loaded.px

    def split(self, name: SplitName) -> ImageSet:
        """Returns the images of a split."""
        if name not in SPLITS:
            raise ConfigError(f"unknown split {name!r}", hint=suggest(name, [*SPLITS]))
        return self._sets[name]

    def shifted(self) -> ImageSet | None:
        """Returns the images of ``shifted``, each content once; None where the option is left out."""
        return None if self._shifted is None else self._shifted_set

    @cached_property
    def _shifted_set(self) -> ImageSet:
        assert self._shifted is not None
        files = ImageFiles.find(self._shifted, "flat")
        pixels, _, _ = files.load(range(len(files)), self._loaded.px, self._read, skip_broken=self.skip_broken)
        return ImageSet.from_pixels(pixels).distinct()

    @cached_property
    def _answers(self) -> Answers:
        labelled = self._scoring.kind != "agreement"
        return Answers(self.victim, lambda: self.split("calibration"), self._loaded.classes, labelled, str(self.path))

    def target(self, images: ImageSet) -> Tensor:
        """Returns class numbers (B,), or for agreement the undefended model's outputs (B, C)."""
        return self._answers.target(images)

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns (B,) 1 where the top class is right, else 0; without a head the centred cosine, 0 if negative."""
        return self._answers.quality(output, target)

    @property
    def quality_name(self) -> str:
        """What ``quality`` measures."""
        kind = self._scoring.kind
        if kind == "agreement":
            return self._answers.agreement_name
        return f"top-1 accuracy ({'own head' if kind == 'head' else 'linear probe'})"


def _said(groups: Mapping[str, str]) -> str:
    return "".join(f"{key} {value}" for key, value in groups.items())


def _causes(counted: Counter[str]) -> str:
    return ", ".join(f"{count} {cause}" for cause, count in counted.most_common() if count)
