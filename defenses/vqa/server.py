"""The server of a vision-language model: the rest of the tower, the projector, the language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leakgauge.defenses.ragged.attention import attention_half, mlp_half
from leakgauge.defenses.ragged.server import SplitServer
from leakgauge.defenses.ragged.split_victim import SplitVictim
from leakgauge.defenses.vqa.connector import Connector
from leakgauge.defenses.vqa.fastv import FastV
from leakgauge.defenses.vqa.flops import QuestionFlops
from leakgauge.defenses.vqa.language_half import LanguageHalf
from leakgauge.harness.contracts.link import Transmission
from leakgauge.harness.contracts.vision_language import VisionLanguageVictim
from leakgauge.harness.errors import PluginError
from leakgauge.harness.scoring.compute import with_parts
from leakgauge.harness.values.flops import Flops
from leakgauge.harness.values.questions import Questions, spread_rows


class LanguageServer(SplitServer):
    """Answers questions from the image tokens that arrived.

        received tokens (T, D) -> blocks without reduction -> connector -> image tokens (n_i, D') -+
        questions -> text tokens ------------------------------------------------------------------+-> answers (B, Q, L)

    Args:
        split: The victim, cut.
        victim: The same, with what is needed to ask it.
        connector: What lies between tower and language model.
        fastv: Drops image tokens inside the language model; None runs it as it is.
    """

    def __init__(
        self, split: SplitVictim, victim: VisionLanguageVictim, connector: Connector, fastv: FastV | None
    ) -> None:
        super().__init__(split)
        self._victim, self._connector = victim, connector
        self._language = LanguageHalf(victim, fastv)
        model: Any = victim.model
        width = int(model.config.text_config.hidden_size)
        self._cost = QuestionFlops(self._language, fastv, width, split.flop_table.part)

    def image_tokens(self, transmission: Transmission) -> list[Tensor]:
        """Returns what the language model gets of each image received, (n, its width)."""
        split, batch = self._split, self._arrived(transmission)
        with torch.no_grad(), split.autocast():
            for layer in split.server_blocks:
                attended = attention_half(split.backbone, layer, batch, proportional=split.proportional)
                batch = mlp_half(split.backbone, layer, batch.with_tokens(attended.tokens))
            return self._connector.read(batch)

    def respond(self, transmission: Transmission, questions: Any = None) -> Tensor:
        """Answers the questions: (B, Q, L) token numbers; without questions, the mean image token (B, D)."""
        tokens = self.image_tokens(transmission)
        if questions is None:
            means = [own.float().mean(dim=0) if len(own) else own.new_zeros(own.shape[1]).float() for own in tokens]
            return torch.stack(means).cpu()
        if not isinstance(questions, Questions) or len(questions) != len(tokens):
            what = f"these are not the questions about {len(tokens)} images"
            raise PluginError(what, where="defense 'vqa_pipeline'")
        with self._split.autocast():
            return spread_rows(self._language.answers(tokens, questions), questions.counts)

    def first_logits(self, transmission: Transmission, questions: Questions) -> Tensor:
        """Returns the logits (all questions, vocabulary) of the first token of every answer."""
        with self._split.autocast():
            return self._language.first_logits(self.image_tokens(transmission), questions)

    def parts(self, transmission: Transmission, questions: Any, output: Tensor) -> dict[str, Tensor] | None:
        """Returns GFLOP (B,) by part; prefill and decoding for one question, the mean of an image's."""
        if questions is None:
            return None
        split, connector = self._split, self._connector
        tower = split.flop_table.server(transmission, split.server_blocks, proportional=split.proportional)
        patches = list(map(connector.patches_of, transmission.received.lengths.tolist()))
        projector = [self.projector_flops(count) for count in patches]
        laid = map(connector.laid_out_count, patches)
        lengths = [[len(b) + len(a) for b, a in map(self._victim.text_tokens, texts)] for texts in questions.texts]
        with torch.no_grad(), split.autocast():
            language = [
                self._cost.count(image, texts, answers)
                for image, texts, answers in zip(laid, lengths, output, strict=True)
            ]
        parts: dict[str, Sequence[float]] = {"tower": tower, "projector": projector}
        parts |= {"prefill": [one.prefill for one in language], "decoding": [one.decoding for one in language]}
        return {name: torch.tensor(values, dtype=torch.float64) / 1e9 for name, values in parts.items()}

    def projector_flops(self, count: int) -> int:
        """Returns the FLOPs of the projector on an image's tokens, on whichever side it runs."""
        return self._split.flop_table.part(("projector", count), lambda: self._connector.project_blanks(count))

    def flops(
        self, edge: Sequence[int], transmission: Transmission, questions: Any, output: Tensor | None
    ) -> Flops | None:
        """Adds tower, projector and language model; ``edge`` is without the projector."""
        parts = None if output is None else self.parts(transmission, questions, output)
        if parts is None:
            return None
        before_sending = torch.tensor(edge, dtype=torch.float64) / 1e9
        if self._connector.projects_on_edge:
            before_sending = before_sending + parts["projector"]
        return with_parts(before_sending, parts, self._connector.projects_on_edge)
