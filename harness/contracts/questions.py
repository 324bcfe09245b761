"""The contract of tasks that ask questions about images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from leakgauge.harness.contracts.task import Task
from leakgauge.harness.errors import PluginError
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.questions import ABSENT, Question, Questions, spread_rows


class QuestionTask(Task):
    """A task whose victim answers questions about images.

    An output is (B, Q, L) int64: the token numbers of each answer, ABSENT after its end. A target is (B, Q) int64: the
    place of each question in the order in which the task asked, ABSENT where an image has fewer. The quality of an
    image is the mean over its questions.
    """

    @abstractmethod
    def asked(self, image_id: str) -> tuple[Question, ...]:
        """Returns the questions about one image, by its identifier; one at least."""

    @abstractmethod
    def read(self, tokens: Sequence[int]) -> str:
        """Returns the text of an answer; of no tokens, which is a documented answer, the empty text."""

    @abstractmethod
    def is_right(self, written: str, question: Question) -> bool:
        """Tells whether a written answer counts as right, by the official normalisation of the data set."""

    def questions(self, images: ImageSet) -> Questions:
        """Returns what is asked about the images."""
        return Questions(tuple(tuple(one.text for one in self.asked(image_id)) for image_id in images.ids))

    def target(self, images: ImageSet) -> Tensor:
        """Returns the numbers of the questions, (B, Q); see the class."""
        asked = [self.asked(image_id) for image_id in images.ids]
        numbers = torch.tensor([self._number(one) for each in asked for one in each])
        return spread_rows(numbers[:, None], [len(each) for each in asked])[:, :, 0]

    def _table(self) -> tuple[list[Question], dict[Question, int]]:
        """Returns all questions that have numbers, and their numbers."""
        if not hasattr(self, "_asked_table"):
            self._asked_table: tuple[list[Question], dict[Question, int]] = ([], {})
        return self._asked_table

    def _number(self, question: Question) -> int:
        order, numbers = self._table()
        if question not in numbers:
            numbers[question] = len(order)
            order.append(question)
        return numbers[question]

    def kinds(self, target: Tensor) -> list[list[str]]:
        """Returns the kind of every question of a target (B, Q), the empty text where there is none."""
        order, _ = self._table()
        return [["" if number == ABSENT else order[number].kind for number in row] for row in target.tolist()]

    def correct(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns (B, Q) float32: 1 where an answer is right, 0 where it is wrong, NaN where there is no question.

        Raises:
            PluginError: The output has not one row a question.
        """
        if output.shape[:2] != target.shape:
            raise PluginError(
                f"answers are {tuple(output.shape)} for questions {tuple(target.shape)}", where=f"task {self.name!r}"
            )
        order, _ = self._table()
        right = torch.full(target.shape, torch.nan)
        for i, row in enumerate(target.tolist()):
            for k, number in enumerate(row):
                if number != ABSENT:
                    written = self.read([token for token in output[i, k].tolist() if token != ABSENT])
                    right[i, k] = float(self.is_right(written, order[number]))
        return right

    def by_kind(self, output: Tensor, target: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns for every kind of question its right answers and its questions, (B,) each by image."""
        right, kinds = self.correct(output, target), self.kinds(target)
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for kind in sorted({kind for row in kinds for kind in row} - {""}):
            asked = torch.tensor([[own == kind for own in row] for row in kinds])
            found[kind] = (right.nan_to_num().mul(asked).sum(dim=1), asked.sum(dim=1))
        return found

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns the share (B,) of an image's questions that are answered right."""
        return self.correct(output, target).nanmean(dim=1)
