"""Task ``imagefolder``: a user's own images, and any pretrained timm or transformers vision model as the victim."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.tasks.head_classes import match_head
from benchmarks.tasks.image_files import ImageFiles
from benchmarks.tasks.image_splits import PROBE_SPLIT, assign, check_counts, split_counts, stratified_order
from benchmarks.victims.linear_probe import PENALTY, attach_probe
from benchmarks.victims.loaded_model import LoadedModel
from benchmarks.victims.timm_model import check_model_name, load_timm_model
from benchmarks.victims.transformers_model import check_model_folder, load_transformers_model
from harness.contracts import SPLITS, SplitName, Task, Victim
from harness.decoding import as_colour, decode
from harness.errors import ConfigError, DataError
from harness.images import ImageSet
from harness.options import ColourOption, Count
from harness.registry import suggest
from harness.splits import duplicate_groups

Library = Literal["timm", "transformers"]
Quality = Literal["auto", "head", "probe", "agreement"]
BATCH = 64
SPARE_SHARE, SPARE_FILES = 0.1, 64
"""Files decoded beyond the number needed, for those that turn out broken or duplicate."""


@dataclass(frozen=True)
class _Scoring:
    """How answers are scored: by labels or by agreement, and the label of each class folder."""

    kind: Literal["head", "probe", "agreement"]
    folder_labels: list[int] | None


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
    """

    name = "imagefolder"
    version = 3

    def __init__(
        self,
        path: str,
        model: str,
        checkpoint: str | None = None,
        pretrained: bool = False,
        image_px: Count | None = None,
        quality: Quality = "auto",
        per_split: Mapping[str, Count] | None = None,
        skip_broken: bool = False,
        pos_embed_antialias: bool = True,
        library: Library = "timm",
        background: ColourOption = "white",
    ) -> None:
        check_counts(per_split or {})
        self.library, self.pretrained, self._wanted = library, pretrained, quality
        if library == "timm":
            self._check_timm(model, checkpoint)
        else:
            model = self._check_transformers(model, checkpoint, pos_embed_antialias)
        self.path = Path(path).expanduser()
        self.checkpoint = Path(checkpoint).expanduser() if checkpoint else None
        for given in (self.path, self.checkpoint):
            if given is not None and not given.exists():
                raise DataError("no such file or folder", where=str(given), mend="check the path")
        self.model, self.image_px, self.per_split = model, image_px, dict(per_split or {})
        self.skip_broken, self.pos_embed_antialias = skip_broken, pos_embed_antialias
        self.background = as_colour(background)
        self.left_out: Counter[str] = Counter()
        self._outputs: dict[str, Tensor] = {}

    def _check_timm(self, model: str, checkpoint: str | None) -> None:
        """Raises ConfigError where the options do not say which weights to load."""
        check_model_name(model)
        if bool(checkpoint) == self.pretrained:
            what = "both `checkpoint` and `pretrained` are set" if self.pretrained else "the model has no weights"
            raise ConfigError(what, where="checkpoint", mend="set either `checkpoint: FILE` or `pretrained: true`")

    def _check_transformers(self, model: str, checkpoint: str | None, antialias: bool) -> str:
        """Returns the folder or hub name; raises where the options do not say which model to load."""
        given = [n for n, odd in (("checkpoint", bool(checkpoint)), ("pos_embed_antialias", not antialias)) if odd]
        if given:
            raise ConfigError("this is for timm models", where=given[0], mend="leave it out, or set `library: timm`")
        if self._wanted == "probe":
            what = "a linear probe needs a timm model"
            raise ConfigError(what, where="quality", mend="take `head` or `agreement`, or set `library: timm`")
        if not self.pretrained:
            model = str(Path(model).expanduser())
            check_model_folder(Path(model))
        elif Path(model).exists():
            what = f"{model!r} is a local folder, but `pretrained: true` asks for a name on the hub"
            raise ConfigError(what, where="pretrained", mend="leave it out to load the folder")
        return model

    @cached_property
    def _files(self) -> ImageFiles:
        return ImageFiles.find(self.path)

    @cached_property
    def _loaded(self) -> LoadedModel:
        if self.library == "transformers":
            return load_transformers_model(self.model, pretrained=self.pretrained, image_px=self.image_px)
        return load_timm_model(
            self.model, self.checkpoint, image_px=self.image_px, pos_embed_antialias=self.pos_embed_antialias
        )

    @cached_property
    def _scoring(self) -> _Scoring:
        """Settles ``quality``; raises ConfigError where the labels or the model do not allow what was asked for."""
        folders, wanted = self._files.classes, self._wanted
        if folders is None:
            if wanted in {"head", "probe"}:
                what = f"{wanted!r} needs labels, but the images do not lie in class folders"
                raise ConfigError(what, where="quality", mend="sort them into CLASS/ folders, or take `agreement`")
            scoring = _Scoring("agreement", None)
        else:
            own = list(range(len(folders)))
            matched = match_head(folders, self._loaded.classes, certain=wanted == "auto")
            if wanted == "agreement":
                scoring = _Scoring("agreement", own)
            elif matched and wanted != "probe":
                scoring = _Scoring("head", matched)
            elif wanted == "head":
                what = f"the class folders do not match the {self._loaded.classes} classes of the model's head"
                other = "probe" if self.library == "timm" else "agreement"
                raise ConfigError(what, where="quality", mend=f"rename them to class numbers, or take `{other}`")
            elif self.library == "transformers":  # no probe to fall back on
                scoring = _Scoring("agreement", own)
            else:
                scoring = _Scoring("probe", own)
        if PROBE_SPLIT in self.per_split and scoring.kind != "probe":
            what = f"only a probe is fitted to images of its own, but the quality is {scoring.kind!r}"
            raise ConfigError(what, where=f"per_split.{PROBE_SPLIT}", mend="leave it out, or set `quality: probe`")
        return scoring

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
        pixels, kept = files.load(rows, self._loaded.px, self.read_image, skip_broken=self.skip_broken)
        self.left_out["broken"] = len(rows) - len(kept)
        labels = None
        if scoring.folder_labels is not None:
            labels = torch.tensor([scoring.folder_labels[files.labels[row]] for row in kept], dtype=torch.long)
        images = self._without_copies(ImageSet.from_pixels(pixels, labels))
        groups = duplicate_groups(images)
        images = ImageSet(images.pixels, images.ids, images.labels, groups)
        classes = None if images.labels is None else images.labels.tolist()
        try:
            counts = split_counts(len(images), self.per_split, probe=scoring.kind == "probe")
            divided = assign(stratified_order(images.ids, classes, groups.tolist()), counts)
        except DataError as error:
            raise DataError(error.what, where=str(self.path), mend=error.mend) from error
        self.left_out["surplus"] = len(images) - sum(counts.values())
        return {name: images.select(positions) for name, positions in divided.items()}

    def _without_copies(self, images: ImageSet) -> ImageSet:
        """Keeps one image of each content, none where its copies carry different labels; sorts them by content."""
        labels = [0] * len(images) if images.labels is None else images.labels.tolist()
        seen: dict[str, set[int]] = {}
        first: dict[str, int] = {}
        for i, image_id in enumerate(images.ids):
            seen.setdefault(image_id, set()).add(labels[i])
            first.setdefault(image_id, i)
        kept = [i for image_id, i in first.items() if len(seen[image_id]) == 1]
        self.left_out["ambiguous"] = sum(len(seen[image_id]) > 1 for image_id in images.ids)
        self.left_out["copies"] = len(images) - len(kept) - self.left_out["ambiguous"]
        return images.select(sorted(kept, key=images.ids.__getitem__))

    @cached_property
    def _victim(self) -> Victim:
        loaded, digest = self._loaded, self._loaded.weights_hash
        name = Path(self.model).name if self.library == "transformers" and not self.pretrained else self.model
        name = ", ".join(part for part in (name, f"{loaded.px} px", loaded.note) if part)
        victim = Victim(loaded.model, loaded.mean, loaded.std, digest, name)
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
                mend="add images of it, or raise `per_split.victim`",
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
        return decode(data, self._loaded.px, self.background)

    def input_px(self) -> int:
        """Side of the images; no image is read to find it."""
        return self._loaded.px

    def split(self, name: SplitName) -> ImageSet:
        """Returns the images of a split."""
        if name not in SPLITS:
            raise ConfigError(f"unknown split {name!r}", mend=suggest(name, [*SPLITS]))
        return self._sets[name]

    def target(self, images: ImageSet) -> Tensor:
        """Returns class numbers (B,), or for agreement the undefended model's outputs (B, C)."""
        if self._scoring.kind != "agreement":
            if images.labels is None:
                raise DataError("the images carry no labels", where=str(self.path), mend="take them from `split`")
            return images.labels
        new = [i for i, image_id in enumerate(images.ids) if image_id not in self._outputs]
        with torch.no_grad():
            for batch in images.select(new).batches(BATCH):
                outputs = self.victim().predict(batch.images())
                self._outputs.update(zip(batch.ids, outputs, strict=True))
        return torch.stack([self._outputs[image_id] for image_id in images.ids])

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns (B,) 1 where the top class is right, else 0; without a head the centred cosine, 0 if negative."""
        output, target = output.detach().cpu(), target.cpu()
        if self._scoring.kind != "agreement":
            return (output.argmax(dim=1) == target).float()
        if self._loaded.classes:
            return (output.argmax(dim=1) == target.argmax(dim=1)).float()
        similarity = functional.cosine_similarity(output.double() - self._centre, target.double() - self._centre, dim=1)
        return similarity.clamp(0, 1).float()

    @cached_property
    def _centre(self) -> Tensor:
        """(C,) mean of the undefended model's features, over the calibration split.

        Features of different images share a large common part: without subtracting it, the cosine of two unrelated
        images can exceed .8.
        """
        return self.target(self.split("calibration")).double().mean(dim=0)

    @property
    def quality_name(self) -> str:
        """What ``quality`` measures."""
        kind = self._scoring.kind
        if kind == "agreement":
            kinds = ("top-1 agreement with the undefended model", "centred feature cosine to the undefended model")
            return kinds[0] if self._loaded.classes else kinds[1]
        return f"top-1 accuracy ({'own head' if kind == 'head' else 'linear probe'})"
