"""Task ``scienceqa``: school questions with an image (Lu et al., Learn to Explain, NeurIPS 2022, arXiv 2209.09513)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from leakgauge.benchmarks.tasks.public_questions.pictured_questions import PicturedQuestions
from leakgauge.benchmarks.tasks.public_questions.question_files import (
    QuestionFiles,
    find_first,
    hub_picture,
    hub_rows,
    part,
    picture_file,
    read_mapping,
)
from leakgauge.benchmarks.tasks.public_questions.square_images import Fit
from leakgauge.benchmarks.victims.loading.input_settings import Interpolation, MeanOption, StdOption
from leakgauge.benchmarks.victims.loading.llava_model import Dtype
from leakgauge.harness.errors import ConfigError, DataError, suggest
from leakgauge.harness.suite.options import ColourOption, Count, FilePath, KeptShare
from leakgauge.harness.values.questions import Question

PROBLEMS, SPLIT_FILE = "problems.json", "pid_splits.json"
HUB_NAME = "derek-thomas/ScienceQA"
HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}
"""Names on the hub of the official splits."""
LETTERS = "ABCDE"
DIRECTLY = "\nAnswer with the option's letter from the given choices directly."
"""Follows the choices, as LLaVA-1.5 is evaluated (arXiv 2310.03744; ``model_vqa_science.py``)."""


def chosen_letter(written: str) -> str | None:
    """Returns the letter that an answer chooses, None where it chooses none.

    As in LLaVA's ``llava/eval/eval_science_qa.py``: the letter alone; else a letter, a full stop and a blank at the
    start; else the one letter that ``The answer is X.`` names, in which the full stop stands for any character.
    """
    if len(written) == 1 and written in LETTERS:
        return written
    if len(written) >= 3 and written[0] in LETTERS and written[1:3] == ". ":
        return written[0]
    named: list[str] = re.findall(r"The answer is ([A-Z]).", written)
    return named[0] if len(named) == 1 else None


def question_text(hint: str, question: str, choices: list[str]) -> str:
    """Returns what is asked: the hint if there is one as context, the question, a line a choice, and how to answer."""
    lines = [
        f"Context: {hint}",
        question,
        *(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)),
    ]
    return "\n".join(lines if hint else lines[1:]) + DIRECTLY


class ScienceQa(PicturedQuestions):
    """The questions of ScienceQA that have an image; quality is the share of letters chosen right.

    The folder holds ``problems.json``, ``pid_splits.json`` and ``images/<split>/<id>/image.png``, with or without
    ``images/``. The kind of a question is its subject. An answer that names no letter, or one that no choice has, is
    wrong; it is never replaced by a guess.

    Args:
        path: See ``PicturedQuestions``, as for all that is not named here.
        model: Likewise.
        split: Official split that all images are from: ``train``, ``val`` or ``test``, in a folder also others that
            its ``pid_splits.json`` names. The task's own splits divide it further.
    """

    name = "scienceqa"
    version = 2
    hub_name = HUB_NAME
    quality_name = "accuracy of chosen letters"

    def __init__(
        self,
        path: FilePath,
        model: FilePath,
        split: str = "test",
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
        super().__init__(
            path,
            model,
            pretrained,
            dtype,
            device_map,
            prompt,
            max_new_tokens,
            per_split,
            questions_per_image,
            fit,
            image_px,
            skip_missing,
            background,
            mean,
            std,
            interpolation,
            crop_share,
        )
        if self.path is None and split not in HUB_SPLITS:
            raise ConfigError(f"unknown {split!r}", where="split", hint=suggest(str(split), [*HUB_SPLITS]))
        self.official_split = split

    def find(self) -> QuestionFiles:
        """Returns the questions and where their images are."""
        return self._on_hub() if self.path is None else self._in_folder()

    def _in_folder(self) -> QuestionFiles:
        assert self.path is not None
        file = find_first(self.path, (PROBLEMS,))
        splits_file = find_first(self.path, (SPLIT_FILE,))
        problems, splits = read_mapping(file), read_mapping(splits_file)
        numbers = splits.get(self.official_split)
        if not isinstance(numbers, list):
            hint = suggest(self.official_split, [*splits])
            raise ConfigError(f"{splits_file} has no split {self.official_split!r}", where="split", hint=hint)
        found = QuestionFiles(str(file))
        for number in map(str, numbers):
            row = problems.get(number)
            if not isinstance(row, dict):
                raise DataError(f"question {number!r} is missing", where=found.where, hint="take the official file")
            if not row.get("image"):
                continue
            image = part(row, "image", str, number=number, where=found.where)
            folder = f"{row.get('split', self.official_split)}/{number}/{image}"
            found.pictures[number] = picture_file(self.path, (f"images/{folder}", folder))
            found.add(number, number, _asked(row, number, found.where))
        return found

    def _on_hub(self) -> QuestionFiles:
        found = QuestionFiles(f"{HUB_NAME} on the hub")
        rows = hub_rows(HUB_NAME, None, HUB_SPLITS[self.official_split])
        for place, row in enumerate(rows):
            if row["image"] is not None:
                number = str(place)
                found.pictures[number] = hub_picture(rows, place, f"of row {number}")
                found.add(number, number, _asked(row, number, found.where))
        return found

    def is_right(self, written: str, question: Question) -> bool:
        """Tells whether an answer chooses the right letter; see ``chosen_letter``."""
        return chosen_letter(written.strip()) == question.answer


def _asked(row: Mapping[str, Any], number: str, where: str) -> Question:
    """Reads a question as ScienceQA writes it."""
    text, subject = (part(row, key, str, number=number, where=where) for key in ("question", "subject"))
    choices: list[str] = part(row, "choices", list, number=number, where=where)
    answer: int = part(row, "answer", int, number=number, where=where)
    if not 2 <= len(choices) <= len(LETTERS) or not all(isinstance(one, str) and one.strip() for one in choices):
        what = f"question {number!r} has the choices {choices!r}, not 2 to {len(LETTERS)} texts"
        raise DataError(what, where=where, hint="take the official file")
    if not 0 <= answer < len(choices):
        what = f"question {number!r} has answer {answer} of {len(choices)} choices"
        raise DataError(what, where=where, hint="take the official file")
    hint = row.get("hint") or ""
    return Question(question_text(str(hint).strip(), text, choices) if text.strip() else "", LETTERS[answer], subject)
