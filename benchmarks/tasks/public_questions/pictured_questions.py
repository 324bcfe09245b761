"""What tasks over public data sets of questions about images have in common; the victim is a pretrained LLaVA."""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from leakgauge.benchmarks.tasks.own_images.image_files import MAX_DECODED_BYTES
from leakgauge.benchmarks.tasks.own_images.image_splits import (
    PROBE_SPLIT,
    assign,
    check_counts,
    split_counts,
    stratified_order,
)
from leakgauge.benchmarks.tasks.public_questions.question_files import HUB, QuestionFiles, natural, on_hub
from leakgauge.benchmarks.tasks.public_questions.square_images import Fit, fit_square
from leakgauge.benchmarks.victims.loading.input_settings import (
    Fed,
    Interpolation,
    MeanOption,
    Normalisation,
    StdOption,
    fed,
)
from leakgauge.benchmarks.victims.loading.llava_model import (
    Dtype,
    check_llava_options,
    llava_input,
    llava_side,
    load_llava,
)
from leakgauge.harness.contracts.questions import QuestionTask
from leakgauge.harness.contracts.reading import Preprocessing, Reading, weights_of
from leakgauge.harness.contracts.vision_language import VisionLanguageVictim
from leakgauge.harness.errors import ConfigError, DataError, suggest
from leakgauge.harness.measurement.near_duplicates import duplicate_groups
from leakgauge.harness.suite.options import ColourOption, Count, FilePath, KeptShare
from leakgauge.harness.values.decoding import as_colour, colour_name, upright_rgb
from leakgauge.harness.values.images import SPLITS, ImageSet, SplitName
from leakgauge.harness.values.questions import Question

SPARE_SHARE, SPARE_IMAGES = 0.1, 64
"""Images decoded beyond the number needed, for those that turn out to be copies."""


class PicturedQuestions(QuestionTask):
    """Questions about images, from a folder of official files or from the hub, asked of a pretrained LLaVA.

    Nothing is read before it is needed. Splits divide images, never the questions about one. Exact copies of an image
    become one, with the questions about all of them; near duplicates share a split, and a group for intervals.
    ``left_out`` counts questions without an image, copies, questions beyond the cap, and images in no split.

    Args:
        path: Folder of the data set, or ``hub`` to load it from the hub (needs ``leakgauge[data]``).
        model: Folder of the LLaVA as ``save_pretrained`` writes it, or with ``pretrained`` its name on the hub.
        pretrained: Download the model from the hub.
        dtype: Number format of the weights: ``float32``, ``bfloat16`` or ``float16``.
        device_map: Spreads the model over devices (needs accelerate).
        prompt: Text given to the model, with ``<image>`` and ``{question}``; None takes that of the model's card.
        max_new_tokens: Longest answer in tokens.
        per_split: Images a split; by default shares of all.
        questions_per_image: At most so many questions an image, evenly spread over its questions by identifier.
        fit: ``pad`` or ``crop``; see ``square_images``.
        image_px: Side of the images, for LLaVA-NeXT; None takes twice the side of its tower.
        skip_missing: Leave out questions whose image is missing.
        background: Colour behind transparent pixels: a name, ``#rrggbb`` or three numbers.
        mean: Per-channel mean that the model was trained with, of images in [0, 1]; None takes that of its image
            processor, else what its family suggests, which the victim's name then says.
        std: Per-channel deviation, likewise.
        interpolation: Filter that reduces pictures; None takes the image processor's, else bicubic.
        crop_share: For ``fit: crop``, the side of the square that is read, as a share of the shorter side.
    """

    hub_name: ClassVar[str]
    """Name of the data set on the hub."""

    def __init__(
        self,
        path: FilePath,
        model: FilePath,
        pretrained: bool = False,
        dtype: Dtype = "float32",
        device_map: str | dict[str, int | str] | None = None,
        prompt: str | None = None,
        max_new_tokens: Count = 16,
        per_split: Mapping[str, Count] | None = None,
        questions_per_image: Count | None = None,
        fit: Fit = "pad",
        image_px: Count | None = None,
        skip_missing: bool = False,
        background: ColourOption = "white",
        mean: MeanOption | None = None,
        std: StdOption | None = None,
        interpolation: Interpolation | None = None,
        crop_share: KeptShare | None = None,
    ) -> None:
        check_counts(per_split or {})
        if PROBE_SPLIT in (per_split or {}):
            what = "no probe is fitted here"
            raise ConfigError(what, where=f"per_split.{PROBE_SPLIT}", hint="leave it out")
        self.model = model if pretrained else str(Path(model).expanduser())
        self._asking: dict[str, Any] = {
            **{"pretrained": pretrained, "dtype": dtype, "device_map": device_map},
            **{"prompt": prompt, "max_new_tokens": max_new_tokens},
        }
        check_llava_options(self.model, **self._asking)
        if crop_share is not None and fit != "crop":
            raise ConfigError("nothing is cropped", where="crop_share", hint="leave it out, or set `fit: crop`")
        self._normalised: dict[str, Any] = {"mean": mean, "std": std}
        self._interpolation, self._crop_share = interpolation, crop_share
        self.path = None if path == HUB else Path(path).expanduser()
        if self.path is not None and not self.path.is_dir():
            raise DataError("no such folder", where=str(self.path), hint=f"check `path`, or take `path: {HUB}`")
        self.per_split, self.questions_per_image = dict(per_split or {}), questions_per_image
        self.fit, self.image_px, self.skip_missing = fit, image_px, skip_missing
        self.background = as_colour(background)
        self._pretrained = pretrained
        self.left_out: Counter[str] = Counter()

    def missing(self) -> tuple[str, ...]:
        """Returns what is missing of questions and weights; with them, that there is no GPU for half precision."""
        found = []
        if self.path is None and importlib.util.find_spec("datasets") is None:
            found.append('the library datasets, for `path: hub` (pip install "leakgauge[data]", or give a folder)')
        elif self.path is None and not on_hub(self.hub_name, "README.md", "dataset"):
            found.append(f"the questions: {self.hub_name} can be neither reached nor is it in the local cache")
        if self._pretrained and not on_hub(self.model, "config.json", "model"):
            found.append(
                f"the weights: {self.model} can be neither reached nor is it in the local cache "
                "(download it elsewhere, and give its folder with `pretrained: false`)"
            )
        if found and self._asking["dtype"] != "float32" and not torch.cuda.is_available():
            found.append(f"a GPU, which {self._asking['dtype']} is meant for")
        return tuple(found)

    @abstractmethod
    def find(self) -> QuestionFiles:
        """Returns the questions and where their images are; nothing is decoded."""

    @cached_property
    def _victim(self) -> VisionLanguageVictim:
        return load_llava(self.model, image_px=self.image_px, **self._asking, **self._normalised)

    @cached_property
    def _input(self) -> tuple[Normalisation, Fed]:
        found, own = llava_input(self.model, pretrained=self._pretrained, **self._normalised)
        return found, fed(own, self._interpolation, self._crop_share)

    def reading(self) -> Reading:
        """Returns what was read; how images are fed, and why so, in full."""
        plain, (found, how) = super().reading(), self._input
        said = how.source if self.fit == "crop" else f"{how.source.partition(',')[0]}, padded to a square"
        return replace(
            plain,
            weights=weights_of(self.victim(), self.model),
            preprocessing=Preprocessing(
                self._side,
                found.mean,
                found.std,
                how.crop_share if self.fit == "crop" else None,
                f"{how.interpolation}, antialiased",
                colour_name(self.background),
                f"{found.said}; {said}",
            ),
        )

    @cached_property
    def _side(self) -> int:
        return llava_side(self.model, pretrained=self._pretrained, image_px=self.image_px)

    @cached_property
    def _loaded(self) -> tuple[dict[str, ImageSet], dict[str, tuple[Question, ...]]]:
        """Decodes the images once and divides them; returns the splits, and the questions by image identifier."""
        files = self.find()
        self.left_out["without image"] = files.without_missing(skip=self.skip_missing)
        names = self._chosen(sorted(files.asked, key=natural))
        decoded = ImageSet.from_pixels(self._decode(files, names))
        by_id: dict[str, list[str]] = {}
        for image_id, name in zip(decoded.ids, names, strict=True):
            by_id.setdefault(image_id, []).append(name)
        self.left_out["copies"] = len(names) - len(by_id)
        asked = {i: self._capped([one for name in same for one in files.asked[name]]) for i, same in by_id.items()}
        images = decoded.distinct()
        images = ImageSet(images.pixels, images.ids, None, duplicate_groups(images))
        assert images.groups is not None
        try:
            counts = split_counts(len(images), self.per_split, probe=False)
            divided = assign(stratified_order(images.ids, None, images.groups.tolist()), counts)
        except DataError as error:
            raise DataError(error.what, where=files.where, hint=error.hint) from error
        self.left_out["surplus"] = len(images) - sum(counts.values())
        return {name: images.select(rows) for name, rows in divided.items()}, asked

    def _chosen(self, names: list[str]) -> list[str]:
        """Picks the images to decode: all of them, or where all counts are given not many more than needed."""
        needed = sum(self.per_split.values())
        needed += int(SPARE_SHARE * needed) + SPARE_IMAGES
        if needed >= len(names) or not all(name in self.per_split for name in SPLITS):
            return names
        return [names[row] for rows in stratified_order(names) for row in rows][:needed]

    def _decode(self, files: QuestionFiles, names: Sequence[str]) -> Tensor:
        """Returns the named images, (N, 3, side, side) uint8."""
        size = len(names) * 3 * self._side**2
        if size > MAX_DECODED_BYTES:
            raise DataError(
                f"{len(names)} images of {self._side} px need {size / 2**30:.1f} GiB of at most "
                f"{MAX_DECODED_BYTES >> 30}",
                where=files.where,
                hint="give all counts of `per_split`, or a smaller `image_px`",
            )
        pixels = torch.empty(len(names), 3, self._side, self._side, dtype=torch.uint8)
        for i, name in enumerate(names):
            picture = files.pictures[name]
            assert picture.read is not None
            try:
                pixels[i] = self.read_image(picture.read())
            except Exception as error:  # PIL raises many kinds for broken data
                raise DataError(
                    f"the image {picture.place} cannot be decoded: {str(error) or type(error).__name__}",
                    where=files.where,
                    hint="download it again",
                ) from error
        return pixels

    def _capped(self, asked: list[tuple[str, Question]]) -> tuple[Question, ...]:
        """Returns an image's questions by identifier, each once, evenly thinned to the cap."""
        ordered = sorted(asked, key=lambda one: natural(one[0]))
        questions = list(dict.fromkeys(question for _, question in ordered))
        cap = self.questions_per_image
        if cap is None or cap >= len(questions):
            return tuple(questions)
        self.left_out["questions beyond the cap"] += len(questions) - cap
        rows = np.linspace(0, len(questions) - 1, cap).round().astype(int)
        return tuple(questions[row] for row in rows.tolist())

    def victim(self) -> VisionLanguageVictim:
        """Returns the LLaVA."""
        return self._victim

    def read_image(self, data: bytes) -> Tensor:
        """Returns an image file as the model is shown it, (3, side, side) uint8."""
        how = self._input[1]
        picture = upright_rgb(data, self.background)
        return fit_square(picture, self._side, self.fit, how.interpolation, how.crop_share)

    def input_px(self) -> int:
        """Side of the images; of the model only the config is read to find it."""
        return self._side

    def split(self, name: SplitName) -> ImageSet:
        """Returns the images of a split; they carry no labels."""
        if name not in SPLITS:
            raise ConfigError(f"unknown split {name!r}", hint=suggest(name, [*SPLITS]))
        return self._loaded[0][name]

    def asked(self, image_id: str) -> tuple[Question, ...]:
        """Returns the questions about an image."""
        found = self._loaded[1].get(image_id)
        if found is None:
            raise DataError(f"no image {image_id!r}", where=f"task {self.name!r}", hint="take images from `split`")
        return found

    def read(self, tokens: Sequence[int]) -> str:
        """Returns the text of an answer."""
        return self.victim().read(tokens)
