"""The split pipeline of a vision-language model: tower, payload, channel, projector, language model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leakgauge.defenses.backbones.exactness import check_mode, check_same, noise_image, once
from leakgauge.defenses.backbones.hf_llava import HfLlava, joined_tiles, tokens_of_images
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.defenses.ragged.attention import attention_half, mlp_half
from leakgauge.defenses.ragged.differentiation import differentiable_tokens
from leakgauge.defenses.ragged.edge import AfterBlock, run_edge
from leakgauge.defenses.reductions.none import NoReduction
from leakgauge.defenses.vqa.fastv import FastV, FastVOptions
from leakgauge.defenses.vqa.flops import QuestionFlops
from leakgauge.defenses.vqa.language_half import LanguageHalf
from leakgauge.harness.contracts.link import Transmission
from leakgauge.harness.contracts.reduction import Reduction
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.contracts.vision_language import VisionLanguageVictim
from leakgauge.harness.errors import ConfigError, PluginError, suggest
from leakgauge.harness.scoring.compute import Flops, with_parts
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.questions import Questions, spread_rows
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

_WHERE = "defense 'vqa_pipeline'"
_OWN = ("projector_on_edge", "fastv")


class VqaPipeline(SplitPipeline):
    """The defense of arXiv 2509.09955 around LLaVA: merging in the image tower, an answer to every question.

    The payload of an image is sent once, however many questions are asked about it.

    Args:
        victim: The victim.
        device: Where to compute.
        projector_on_edge: Whether the projector runs before the payload is written, so that it carries tokens of the
            language model's width; it needs all blocks on the edge.
        fastv: ``{layer, keep}`` drops image tokens in the language model as well (``leakgauge.defenses.vqa.fastv``).
        options: As for ``split_pipeline``. ``cut`` counts the blocks before the layer that the language model reads.
    """

    name = "vqa_pipeline"

    def __init__(
        self,
        victim: Victim,
        device: torch.device,
        projector_on_edge: bool = False,
        fastv: FastVOptions | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(victim, VisionLanguageVictim):
            raise ConfigError(
                "the victim answers no questions", where=_WHERE, hint="take a task with questions, or split_pipeline"
            )
        known = inspect.signature(SplitPipeline).parameters
        for key in options:
            if key not in known:
                raise ConfigError(f"unknown option {key!r}", where=_WHERE, hint=suggest(key, [*known, *_OWN]))
        super().__init__(victim, device, **options)
        if not isinstance(self._backbone, HfLlava):
            raise ConfigError(f"{type(victim.model).__name__} is no LLaVA", where=_WHERE)
        self._llava, self._asked = self._backbone, victim
        self._whole = self.cut == self._llava.depth
        if (projector_on_edge or self._llava.tiled) and not self._whole:
            what = "the projector on the edge" if projector_on_edge else "a victim that cuts images into tiles"
            raise ConfigError(
                f"{what} needs all {self._llava.depth} blocks there", where=_WHERE, hint="leave out `cut`"
            )
        self.projects_on_edge = projector_on_edge
        self._fastv = None if fastv is None else FastV(**fastv)
        self._language = LanguageHalf(victim, self._fastv)
        self._tiles = self._count_tiles()
        self._whole_count: int | None = None
        self.grid = (self._llava.grid[0] * self._tiles, self._llava.grid[1])
        self._link |= {"projector_on_edge": projector_on_edge}
        self._options |= {"projector_on_edge": projector_on_edge, "fastv": fastv}
        self._question_flops = QuestionFlops(self._language, self._fastv, self._language_width)
        once(victim.model, "first answer token", self._compare)

    def _check_exact(self) -> None:
        """Left to ``_compare``, which needs the language model."""

    @torch.no_grad()
    def _compare(self) -> None:
        """Compares image tokens, and logits of an answer's first token, with those of the model's own forward."""
        asked, questions = self._asked, Questions((("What is it?",),))
        network: Any = asked.model
        check_mode(network)
        side = asked.image_px
        image = noise_image(side, side, self._device)
        with torch.autocast(self._device.type, enabled=False):
            inputs = asked.vision_inputs(image)
            own = network.get_image_features(**inputs).pooler_output[0]
            batch = self._llava.embed(asked.normalise(image).to(network.dtype))
            names = tuple(map(str, range(len(batch))))
            depth = self._llava.depth
            batch, _ = run_edge(self._llava, batch, names, NoReduction(), Streams(0), cut=depth, proportional=False)
            batch = self._llava.project_tokens(self._llava.select_tokens(batch))
            tokens = self._laid_out((batch if self._tiles == 1 else joined_tiles(batch, self._tiles)).tokens)
            check_same(asked, tokens, own, lambda: "tokens of the image tower or projector differ")
            prompts = asked.padded_prompts(questions, len(own), self._device)
            logits = network(**inputs, **prompts).logits[:, -1].float().cpu()
            found = LanguageHalf(asked).first_logits([tokens], questions)
        check_same(asked, found, logits, lambda: "image tokens agree, logits of the language model differ")

    @property
    def _language_width(self) -> int:
        return int(self._asked.model.config.text_config.hidden_size)  # type: ignore[union-attr, arg-type]

    def tuned(self, **options: Any) -> SplitPipeline:
        """Returns a pipeline with other options; language costs are shared where they are the same."""
        sibling = super().tuned(**options)
        assert isinstance(sibling, VqaPipeline)
        if sibling._fastv == self._fastv:
            sibling._question_flops = self._question_flops
        return sibling

    def _count_tiles(self) -> int:
        """Returns the images that the tower runs for one image of the task."""
        if not self._llava.tiled:
            return 1
        return int(self._asked.vision_inputs(self._blank())["pixel_values"].shape[1])

    def _blank(self) -> Tensor:
        """Returns one image without content, (1, 3, H, W), for what depends on its size alone."""
        return torch.zeros(1, 3, self._asked.image_px, self._asked.image_px, device=self._device)

    def _units(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        if self._tiles == 1:
            return ids
        return tuple(f"{image_id}#{tile}" for image_id in ids for tile in range(self._tiles))

    def edge(
        self, images: ImageSet, reduction: Reduction, rng: Streams, after_block: AfterBlock | None = None
    ) -> tuple[TokenBatch, Tensor]:
        """Runs the edge: the tokens of each image that are sent, and the (B, cut) token counts after each block."""
        batch, counts = self._run_blocks(images, reduction, rng, after_block)
        with torch.no_grad(), self._autocast():
            return self._sent_tokens(batch), counts.view(len(images), self._tiles, -1).sum(dim=1)

    def _sent_tokens(self, batch: TokenBatch) -> TokenBatch:
        """Makes of the tokens after the edge blocks those that are sent."""
        if not self._whole:
            return batch
        batch = self._llava.select_tokens(batch)
        if self.projects_on_edge:
            batch = self._llava.project_tokens(batch)
        return batch if self._tiles == 1 else joined_tiles(batch, self._tiles)

    def edge_tokens(self, images: Tensor) -> TokenBatch:
        """Runs the edge without reduction on images (B, 3, H, W) in [0, 1]; gradients reach the images."""
        with self._autocast():
            pixels = self._victim.normalise(images)
            batch = differentiable_tokens(self._victim.model, self._llava, pixels, self.cut)
            return self._sent_tokens(batch.with_tokens(batch.tokens.to(self._llava.dtype)))

    def image_tokens(self, transmission: Transmission) -> list[Tensor]:
        """Returns what the language model gets of each image received, (n, its width)."""
        batch = transmission.received.to(self._device)
        batch = batch.with_tokens(batch.tokens.to(self._llava.dtype))
        with torch.no_grad(), self._autocast():
            if not self._whole:
                for layer in range(self.cut, self._llava.depth):
                    attended = attention_half(self._llava, layer, batch, proportional=self._proportional)
                    batch = mlp_half(self._llava, layer, batch.with_tokens(attended.tokens))
                batch = self._llava.select_tokens(batch)
            if not self.projects_on_edge:
                batch = self._llava.project_tokens(batch)
            return [self._laid_out(tokens) for tokens in tokens_of_images(batch)]

    def _laid_out(self, tokens: Tensor) -> Tensor:
        """Lays an image's tokens out for the language model, which of LLaVA-NeXT wants ends of rows.

        Where all tokens of all tiles arrived, the model's own method does it. Where some were merged there are no rows:
        one end of row follows them all, as the model does for an image of one tile (assumed).
        """
        if not self._llava.tiled:
            return tokens
        inner: Any = self._asked.model.model
        patches = self.grid[0] * self.grid[1]
        if len(tokens) != patches:
            return torch.cat([tokens, inner.image_newline[None].to(tokens)])
        side = self._asked.image_px
        strategy = self._asked.model.config.vision_feature_select_strategy  # type: ignore[union-attr]
        packed, _ = inner.pack_image_features(
            [tokens.view(self._tiles, -1, tokens.shape[1])],
            torch.tensor([[side, side]]),
            vision_feature_select_strategy=strategy,
            image_newline=inner.image_newline,
        )
        whole: Tensor = packed[0]
        return whole

    def _laid_out_count(self, tokens: int) -> int:
        """Returns how many tokens ``_laid_out`` makes of so many."""
        if not self._llava.tiled:
            return tokens
        if tokens != self.grid[0] * self.grid[1]:
            return tokens + 1
        if self._whole_count is None:
            self._whole_count = self._asked.image_tokens(self._blank())
        return self._whole_count

    def respond(self, transmission: Transmission, questions: Any = None) -> Tensor:
        """Answers the questions: (B, Q, L) token numbers; without questions, the mean image token (B, D)."""
        tokens = self.image_tokens(transmission)
        if questions is None:
            means = [own.float().mean(dim=0) if len(own) else own.new_zeros(own.shape[1]).float() for own in tokens]
            return torch.stack(means).cpu()
        questions = _questions(questions, len(tokens))
        with self._autocast():
            return spread_rows(self._language.answers(tokens, questions), questions.counts)

    def first_logits(self, transmission: Transmission, questions: Questions) -> Tensor:
        """Returns the logits (all questions, vocabulary) of the first token of every answer."""
        with self._autocast():
            return self._language.first_logits(self.image_tokens(transmission), questions)

    def server_flops(self, transmission: Transmission, questions: Any, output: Tensor) -> dict[str, Tensor] | None:
        """Returns GFLOP (B,) of the server by part; prefill and decoding for one question, the mean of an image's."""
        if questions is None:
            return None
        received = transmission.received.lengths.tolist()
        sized = transmission.encoded.sizes_sent
        blocks = range(self.cut, self._llava.depth)
        tower = [
            sum(self._flop_table.server_block(layer, count, self._proportional, sized) for layer in blocks)
            for count in received
        ]
        patches = [
            count - (0 if self._whole else self._llava.prefix * self._llava.drops_class_token) for count in received
        ]
        projector = [self.projector_flops(count) for count in patches]
        laid = [self._laid_out_count(count) for count in patches]
        lengths = [[len(b) + len(a) for b, a in map(self._asked.text_tokens, texts)] for texts in questions.texts]
        with torch.no_grad(), self._autocast():
            language = [
                self._question_flops.count(image, texts, answers)
                for image, texts, answers in zip(laid, lengths, output, strict=True)
            ]
        parts: dict[str, Sequence[float]] = {"tower": tower, "projector": projector}
        parts |= {"prefill": [one.prefill for one in language], "decoding": [one.decoding for one in language]}
        return {name: torch.tensor(values, dtype=torch.float64) / 1e9 for name, values in parts.items()}

    def flops(
        self, images: ImageSet, transmission: Transmission, questions: Any = None, output: Tensor | None = None
    ) -> Flops | None:
        """Returns what measuring each image alone would; None where counts do not decide."""
        if not self._counts_by_tokens or self._wire.learned or self._tiles > 1 or output is None:
            return None
        parts = self.server_flops(transmission, questions, output)
        if parts is None:
            return None
        with torch.no_grad(), self._autocast():
            edge = torch.tensor(self._flop_table.edge(images, transmission, self._reducing), dtype=torch.float64) / 1e9
        if self.projects_on_edge:
            edge = edge + parts["projector"]
        return with_parts(edge, parts, self.projects_on_edge)

    def projector_flops(self, count: int) -> int:
        """Returns the FLOPs of the projector on an image's tokens."""
        width, device = self._llava.width, self._device
        tokens = torch.zeros(count, width, device=device, dtype=self._llava.dtype)
        made_up = TokenBatch(
            tokens, tokens.new_tensor([count]).long(), tokens[:, 0].long(), tokens.new_zeros(1, 0).long(), 0
        )
        return self._flop_table.part(("projector", count), lambda: self._llava.project_tokens(made_up))


def _questions(questions: Any, count: int) -> Questions:
    if not isinstance(questions, Questions) or len(questions) != count:
        raise PluginError(f"these are not the questions about {count} images", where=_WHERE)
    return questions
