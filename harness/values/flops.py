"""What computing an image costs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Flops(NamedTuple):
    """(B,) GFLOP an image before the payload is sent, and in total; 2 per multiply-add, merging included.

    ``parts`` are those of a vision-language victim by name, (B,) each; they add up to ``total``. There the total is
    that of one question, the mean over the image's questions: tower and projector run once an image, the language model
    once a question.
    """

    edge: Tensor
    total: Tensor
    parts: dict[str, Tensor] = {}  # noqa: RUF012 - never written to
