"""FLOPs of the language model by the lengths of prompt and answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from leakgauge.defenses.vqa.fastv import RUNS, FastV, check_layers, last_attention, run_layers
from leakgauge.defenses.vqa.language_half import LanguageHalf
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.questions import ABSENT

Part = Callable[[tuple[Any, ...], Callable[[], Any]], int]
SHORT, LONG, CHECK = 8, 16, 24
"""Tokens of the made-up prompts that are counted: two settle the law, the third checks it."""


class QuestionCost(NamedTuple):
    """FLOPs of one question, the mean over an image's: of the prompt, and of the answer's tokens after the first."""

    prefill: float
    decoding: float


class _Law(NamedTuple):
    """FLOPs of some layers on ``new`` tokens that see ``total``: each new token costs, and each pair that attends."""

    token: int
    pair: int

    def __call__(self, new: int, total: int) -> int:
        return self.token * new + self.pair * new * total


class QuestionFlops:
    """Counts as ``torch.utils.flop_counter`` does, on made-up prompts of one question.

    The operations depend on the lengths alone: linear layers on the tokens that are new, and attention of these to all
    that came before. Attention is counted whole, as the counter does, although half of it is masked.

    Args:
        language: The language model.
        fastv: What drops image tokens inside it.
        width: Width of its tokens.
        part: Returns the FLOPs of what it is given to run, known by a key (``ragged.flops.FlopTable.part``).
    """

    def __init__(self, language: LanguageHalf, fastv: FastV | None, width: int, part: Part) -> None:
        self._language, self._fastv, self._width, self._part = language, fastv, width, part
        self._model: Any = language.model
        check_layers(self._model)

    def count(self, image: int, texts: Sequence[int], answers: Tensor) -> QuestionCost:
        """Returns the mean cost of an image's questions.

        Args:
            image: Its tokens as the language model gets them.
            texts: Tokens of each question's prompt beside them.
            answers: (Q or more, L) token numbers of the answers, ABSENT after the end.
        """
        costs = [
            self.question(image, text, int((row != ABSENT).sum()), len(row))
            for text, row in zip(texts, answers[: len(texts)], strict=True)
        ]
        return QuestionCost(*(sum(part) / len(costs) for part in zip(*costs, strict=True)))

    def question(self, image: int, text: int, written: int, longest: int) -> QuestionCost:
        """Returns the cost of one question with ``written`` tokens of answer, of which there may be ``longest``."""
        whole = image + text
        left = whole if self._fastv is None else text + self._fastv.kept(image)
        early, late = self._laws
        prefill = early(whole, whole) + late(left, left) + self._head + self._scoring(whole)
        # The first token comes from the prompt; the step that finds the end counts too.
        steps = min(written, longest - 1)
        decoding = sum(early(1, whole + k) + late(1, left + k) + self._head for k in range(1, steps + 1))
        return QuestionCost(prefill, decoding)

    @cached_property
    def _laws(self) -> tuple[_Law, _Law]:
        """The laws of the layers before the drop and after it; without one, all layers are before."""
        layers = len(self._model.layers)
        first = layers if self._fastv is None else self._fastv.layer
        return self._law(0, first), self._law(first, layers)

    def _law(self, first: int, end: int) -> _Law:
        if first == end:
            return _Law(0, 0)
        short, long, check = (self._layers(first, end, length) for length in (SHORT, LONG, CHECK))
        pair = (long * SHORT - short * LONG) // (SHORT * LONG * (LONG - SHORT))
        law = _Law((short - pair * SHORT * SHORT) // SHORT, pair)
        if (law(SHORT, SHORT), law(LONG, LONG), law(CHECK, CHECK)) != (short, long, check):
            raise ConfigError(
                f"the cost of {type(self._model).__name__} does not follow from the length of its input",
                where="defense 'vqa_pipeline'",
                hint=f"take a language model among {', '.join(RUNS)}",
            )
        return law

    def _states(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Makes up states (1, length, width), their mask and positions."""
        weight = next(self._model.parameters())
        states = torch.zeros(1, length, self._width, device=self._language.device, dtype=weight.dtype)
        mask = torch.ones(1, length, dtype=torch.long, device=states.device)
        return states, mask, torch.arange(length, device=states.device)[None]

    def _run(self, first: int, end: int, length: int, *, ranks: bool = False) -> None:
        """Runs some layers on ``length`` tokens, and ranks the tokens by the attention of the first, where asked."""
        states, mask, positions = self._states(length)
        memory = DynamicCache(config=self._model.config)
        run_layers(self._model, states, mask, positions, memory, first, end)
        if ranks:
            last_attention(self._model, states[:, -1:], mask, positions[:, -1:], memory, first)

    def _layers(self, first: int, end: int, length: int) -> int:
        return self._part(("language", first, end, length), lambda: self._run(first, end, length))

    @property
    def _head(self) -> int:
        return self._part(("language head",), lambda: self._language.head(self._states(1)[0]))

    def _scoring(self, length: int) -> int:
        """Returns the FLOPs of ranking image tokens, which FastV does once a prompt."""
        if self._fastv is None:
            return 0
        layer = self._fastv.layer - 1
        both = self._part(("ranked", layer, length), lambda: self._run(layer, layer + 1, length, ranks=True))
        return both - self._layers(layer, layer + 1, length)
