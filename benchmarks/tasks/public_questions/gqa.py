"""Task ``gqa``: questions about photographs (Hudson & Manning, GQA, CVPR 2019, arXiv 1902.09506)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from leakgauge.benchmarks.tasks.public_questions.pictured_questions import PicturedQuestions
from leakgauge.benchmarks.tasks.public_questions.question_files import (
    PictureFile,
    QuestionFiles,
    find_first,
    hub_picture,
    hub_rows,
    part,
    picture_file,
    read_mapping,
)
from leakgauge.harness.errors import DataError
from leakgauge.harness.values.questions import Question

QUESTIONS = "testdev_balanced_questions.json"
HUB_NAME, HUB_SPLIT = "lmms-lab/GQA", "testdev"
HUB_QUESTIONS, HUB_IMAGES = "testdev_balanced_instructions", "testdev_balanced_images"
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
"""Follows every question, as LLaVA-1.5 is evaluated (arXiv 2310.03744, table 2 and its question file for GQA)."""


def normalise_answer(written: str) -> str:
    """Returns an answer as it is compared: stripped, without full stops at its end, in lower case.

    This is what LLaVA's ``scripts/convert_gqa_for_eval.py`` makes of answers; GQA's ``eval.py`` then asks for equality.
    """
    return written.strip().rstrip(".").lower()


class Gqa(PicturedQuestions):
    """The balanced test-dev questions of GQA; quality is the share of an image's answers that match exactly.

    The folder holds ``testdev_balanced_questions.json``, itself or in ``questions/``, and ``images/<imageId>.jpg``. The
    kind of a question is its structural type. Options: see ``PicturedQuestions``.
    """

    name = "gqa"
    version = 2
    hub_name = HUB_NAME
    quality_name = "exact-match accuracy"

    def find(self) -> QuestionFiles:
        """Returns the questions and where their images are."""
        return self._on_hub() if self.path is None else self._in_folder()

    def _in_folder(self) -> QuestionFiles:
        assert self.path is not None
        file = find_first(self.path, (QUESTIONS, f"questions/{QUESTIONS}"))
        found = QuestionFiles(str(file))
        _add_all(found, read_mapping(file).items())
        for image in found.asked:
            found.pictures[image] = picture_file(self.path, (f"images/{image}.jpg",))
        return found

    def _on_hub(self) -> QuestionFiles:
        found = QuestionFiles(f"{HUB_NAME} on the hub")
        images = hub_rows(HUB_NAME, HUB_IMAGES, HUB_SPLIT)
        for row, image in enumerate(images["id"]):
            found.pictures[str(image)] = hub_picture(images, row, str(image))
        questions = hub_rows(HUB_NAME, HUB_QUESTIONS, HUB_SPLIT)
        _add_all(found, ((str(row["id"]), row) for row in questions))
        for image in found.asked:
            found.pictures.setdefault(image, PictureFile(image, None))
        return found

    def is_right(self, written: str, question: Question) -> bool:
        """Tells whether an answer is the right one after ``normalise_answer``."""
        return normalise_answer(written) == question.answer.strip().lower()


def _add_all(found: QuestionFiles, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Adds questions as GQA writes them, by identifier."""
    for number, row in rows:
        if not isinstance(row, Mapping):
            raise DataError(f"question {number!r} is no mapping", where=found.where, hint="take the official file")
        text, answer, image = (part(row, key, str, number=number, where=found.where) for key in _PARTS)
        kinds = part(row, "types", dict, number=number, where=found.where)
        kind = part(kinds, "structural", str, number=number, where=found.where)
        found.add(number, image, Question(f"{text}{SHORT_ANSWER}" if text.strip() else "", answer, kind))


_PARTS = ("question", "answer", "imageId")
