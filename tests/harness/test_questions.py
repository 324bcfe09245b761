"""Questions: rows by image, right answers, kinds, and what is refused."""

from __future__ import annotations

import pytest
import torch

from leakgauge.harness.contracts.questions import QuestionTask
from leakgauge.harness.errors import PluginError
from leakgauge.harness.measurement.transmitting import joined
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.questions import ABSENT, Question, Questions, spread_rows

WORDS = ("yes", "no", "two")


class Quiz(QuestionTask):
    """Image ``a`` is asked three questions, ``b`` one."""

    name = "quiz"
    version = 1
    quality_name = "right"

    def victim(self):
        raise NotImplementedError

    def split(self, name):
        pixels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
        return ImageSet(pixels, ("a", "b"))

    def asked(self, image_id):
        of_a = (
            Question("is it?", "yes", "being"),
            Question("how many?", "two", "count"),
            Question("was it?", "no", "being"),
        )
        return of_a if image_id == "a" else (Question("is it?", "no", "being"),)

    def read(self, tokens):
        return " ".join(WORDS[token] for token in tokens)

    def is_right(self, written, question):
        return written == question.answer


@pytest.fixture
def quiz():
    return Quiz()


def output(*rows):
    """Answers of one token each, by image."""
    return spread_rows(torch.tensor([[token, ABSENT] for row in rows for token in row]), [len(row) for row in rows])


def test_questions_carry_no_answers(quiz):
    questions = quiz.questions(quiz.split("search"))
    assert questions == Questions((("is it?", "how many?", "was it?"), ("is it?",)))
    assert questions.counts == [3, 1]
    assert questions.select([1]).flat() == ["is it?"]


def test_quality_is_the_share_of_an_images_questions(quiz):
    images = quiz.split("search")
    target = quiz.target(images)
    assert target.shape == (2, 3)
    assert target[1, 1:].tolist() == [ABSENT, ABSENT]
    found = output([0, 2, 0], [1])
    assert quiz.quality(found, target).tolist() == pytest.approx([2 / 3, 1.0])
    assert quiz.correct(found, target)[1].isnan().tolist() == [False, True, True]


def test_the_same_text_with_another_answer_is_another_question(quiz):
    target = quiz.target(quiz.split("search"))
    assert target[0, 0] != target[1, 0]
    # Whatever the batches, a question keeps its number.
    alone = quiz.target(quiz.split("search").select([1]))
    assert alone[0, 0] == target[1, 0]


def test_an_empty_answer_is_wrong_and_not_absent(quiz):
    target = quiz.target(quiz.split("search"))
    silent = torch.full((2, 3, 2), ABSENT)
    assert quiz.quality(silent, target).tolist() == [0.0, 0.0]


def test_kinds_are_counted_by_image(quiz):
    target = quiz.target(quiz.split("search"))
    found = quiz.by_kind(output([0, 0, 0], [1]), target)
    assert {kind: (right.tolist(), asked.tolist()) for kind, (right, asked) in found.items()} == {
        "being": ([1.0, 1.0], [2, 1]),
        "count": ([0.0, 0.0], [1, 0]),
    }


def test_answers_to_other_questions_are_refused(quiz):
    with pytest.raises(PluginError, match=r"\(1, 3, 2\) for questions \(2, 3\)"):
        quiz.correct(output([0, 0, 0]), quiz.target(quiz.split("search")))


def test_batches_with_fewer_questions_are_filled_up():
    whole = joined([torch.zeros(1, 3, 2, dtype=torch.long), torch.zeros(2, 1, 2, dtype=torch.long)])
    assert whole.shape == (3, 3, 2)
    assert whole[1, 1:].eq(ABSENT).all()
    assert joined([torch.zeros(1, 5), torch.ones(1, 5)]).shape == (2, 5)
