"""Task ``scenes_vqa``: questions about drawn scenes, answered by a small trained LLaVA."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from leakgauge.benchmarks.tasks.drawn_scenes.scenes import SCENE_PX
from leakgauge.benchmarks.tasks.drawn_scenes.splits import SceneSplit, photographs_of, scene_split
from leakgauge.benchmarks.tasks.photo_crops.crops import SIDES
from leakgauge.benchmarks.tasks.photo_crops.photos import crop_set
from leakgauge.benchmarks.victims.scenes_llava import load_scenes_llava
from leakgauge.harness.contracts.questions import QuestionTask
from leakgauge.harness.contracts.vision_language import VisionLanguageVictim
from leakgauge.harness.errors import DataError
from leakgauge.harness.values.images import SPLITS, ImageSet, SplitName
from leakgauge.harness.values.questions import Question


@cache
def _victim() -> VisionLanguageVictim:
    return load_scenes_llava()


class ScenesVqa(QuestionTask):
    """Scenes of 64 x 64 px with shapes on flat, shaded and photographic backgrounds; five questions each.

    One question of every kind: count, colour, shape, relation and existence. Quality is the share of an image's answers
    that are exactly right. No photograph behind the scenes serves two splits; the victim was trained on fresh scenes
    over the attacker's. ``background`` and ``tone`` are private attributes: no question asks about them.
    """

    name = "scenes_vqa"
    version = 1
    quality_name = "answers right"

    def victim(self) -> VisionLanguageVictim:
        """Returns the shipped LLaVA: a CLIP of 6 x 160 with 8-px patches and a Llama of 4 x 192."""
        return _victim()

    def input_px(self) -> int:
        """Side of the scenes."""
        return SCENE_PX

    def split(self, name: SplitName) -> ImageSet:
        """Returns the scenes of a split; they carry no labels."""
        return scene_split(name).images

    def shifted(self) -> ImageSet:
        """Returns crops of the photographs behind the attacker's scenes, with nothing drawn on them."""
        crops, own = crop_set("attacker"), photographs_of("attacker")
        assert crops.labels is not None
        rows = torch.isin(crops.labels // len(SIDES), torch.tensor(own)).nonzero().squeeze(1)
        return crops.select(rows)

    def asked(self, image_id: str) -> tuple[Question, ...]:
        """Returns the five questions about a scene."""
        split, row = self._place(image_id)
        return tuple(Question(one.text, one.answer, one.kind) for one in split.questions[row])

    def read(self, tokens: Sequence[int]) -> str:
        """Returns the words of an answer."""
        return self.victim().read(tokens)

    def is_right(self, written: str, question: Question) -> bool:
        """Tells whether an answer is the right word and nothing else."""
        return written == question.answer

    def attributes(self, images: ImageSet) -> dict[str, Tensor]:
        """Returns ``background`` (flat, shaded or photograph) and ``tone`` (warm or cool), (B,) int64."""
        split, _ = self._place(images.ids[0])
        found = split.attributes()
        rows = [self._place(image_id)[1] for image_id in images.ids]
        return {name: values[rows] for name, values in found.items()}

    def _place(self, image_id: str) -> tuple[SceneSplit, int]:
        """Returns the split that holds an image, and where."""
        for name in ("evaluation", "search", "calibration", "attacker"):
            row = _rows(name).get(image_id)
            if row is not None:
                return scene_split(name), row
        raise DataError(
            f"no scene {image_id!r}", where=f"task {self.name!r}", hint=f"take images of {', '.join(SPLITS)}"
        )


@cache
def _rows(name: SplitName) -> dict[str, int]:
    return {image_id: i for i, image_id in enumerate(scene_split(name).images.ids)}
