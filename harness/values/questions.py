"""Questions about images: what a vision-language victim is asked, and answers laid out by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

ABSENT = -1
"""Fills token numbers after an answer's end, and questions that an image does not have."""


class Question(NamedTuple):
    """One question: its text, the right answer, and what kind of question it is."""

    text: str
    answer: str
    kind: str


@dataclass(frozen=True)
class Questions:
    """Questions about B images, without their answers.

    Args:
        texts: For each image the texts asked about it, one or more.
    """

    texts: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, index: Sequence[int] | Tensor) -> Questions:
        """Returns the questions about the images at ``index``, in that order."""
        rows = torch.as_tensor(index, dtype=torch.long).tolist()
        return Questions(tuple(self.texts[i] for i in rows))

    @property
    def counts(self) -> list[int]:
        """Questions an image."""
        return [len(texts) for texts in self.texts]

    def flat(self) -> list[str]:
        """Returns all texts, image after image."""
        return [text for texts in self.texts for text in texts]


def spread_rows(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Lays the rows (sum of counts, L) of all questions out by image: (B, most questions, L), ABSENT where none is."""
    spread = rows.new_full((len(counts), max(counts, default=0), rows.shape[1]), ABSENT)
    start = 0
    for i, count in enumerate(counts):
        spread[i, :count] = rows[start : start + count]
        start += count
    return spread
