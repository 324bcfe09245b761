"""The server's language model: as many image positions as tokens arrived, left padding, greedy decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from leakgauge.defenses.vqa.fastv import FastV, Stream, run_layers
from leakgauge.harness.contracts.vision_language import VisionLanguageVictim
from leakgauge.harness.values.questions import ABSENT, Questions

SEQUENCES = 64
"""Questions that are answered side by side."""


class Prompt(NamedTuple):
    """Embedded prompts, padded on the left.

    ``embedded`` (N, S, D); ``mask`` (N, S) int64, 1 where a token is real; ``image`` (N, S) bool, where image tokens
    lie.
    """

    embedded: Tensor
    mask: Tensor
    image: Tensor

    @property
    def positions(self) -> Tensor:
        """(N, S) int64 positions from 0 at the first real token."""
        return (self.mask.cumsum(dim=1) - 1).clamp_min(0)


class Started(NamedTuple):
    """The language model after its prompts: the logits (N, vocabulary) of what comes next, and what it remembers."""

    logits: Tensor
    cache: Any
    streams: tuple[Stream, ...]


class LanguageHalf:
    """Answers questions from received image tokens; the victim's own modules, never modified.

    Tokens take consecutive positions, in the order in which they arrived: which place of the image a merged token
    stands for the language model is not told (assumed: arXiv 2509.09955 leaves it open). Where none arrived the
    question stands alone, and is answered from its text.

    Args:
        victim: The victim.
        fastv: Drops image tokens inside the language model; None runs it as it is.

    Attributes:
        model: The language model without its head.
        head: What makes logits of its states.
    """

    def __init__(self, victim: VisionLanguageVictim, fastv: FastV | None = None) -> None:
        self._victim, self._fastv = victim, fastv
        model: Any = victim.model
        self.model: Any = model.model.language_model
        self.head: Any = model.lm_head
        self._embed = model.get_input_embeddings()
        if fastv is not None:
            fastv.check(self.model)

    @property
    def device(self) -> torch.device:
        """Where prompts enter; a model spread over devices moves them on by itself."""
        device: torch.device = self._embed.weight.device
        # What lies on disk has no device of its own, but a hook that fetches it.
        return device if device.type != "meta" else torch.device(self._embed._hf_hook.execution_device)

    def prompt(self, images: Sequence[Tensor], texts: Sequence[str]) -> Prompt:
        """Embeds one prompt an image.

        Args:
            images: N times image tokens (n, D), n may be 0.
            texts: N questions.
        """
        device, rows, places = self.device, [], []
        for image, text in zip(images, texts, strict=True):
            before, after = self._victim.text_tokens(text)
            own = image.to(device, self._embed.weight.dtype)
            rows.append(torch.cat([self._embedded(before), own, self._embedded(after)]))
            places.append((len(before), len(before) + len(own)))
        longest = max(map(len, rows))
        embedded = rows[0].new_zeros(len(rows), longest, rows[0].shape[1])
        mask = torch.zeros(len(rows), longest, dtype=torch.long, device=device)
        is_image = torch.zeros(len(rows), longest, dtype=torch.bool, device=device)
        for i, (row, (start, end)) in enumerate(zip(rows, places, strict=True)):
            pad = longest - len(row)
            embedded[i, pad:], mask[i, pad:] = row, 1
            is_image[i, pad + start : pad + end] = True
        return Prompt(embedded, mask, is_image)

    def _embedded(self, ids: list[int]) -> Tensor:
        tokens: Tensor = self._embed(torch.tensor(ids, dtype=torch.long, device=self.device))
        return tokens

    def start(self, prompt: Prompt) -> Started:
        """Runs the language model on whole prompts (prefill)."""
        cache = DynamicCache(config=self.model.config)
        if self._fastv is None:
            output = self.model(
                inputs_embeds=prompt.embedded,
                attention_mask=prompt.mask,
                position_ids=prompt.positions,
                past_key_values=cache,
                use_cache=True,
            )
            states = output.last_hidden_state
            streams: tuple[Stream, ...] = (Stream(prompt.mask, prompt.positions[:, -1]),)
        else:
            states, streams = self._fastv.start(self.model, prompt.embedded, prompt.mask, prompt.image, cache)
        return Started(self.head(states[:, -1]), cache, streams)

    def step(self, started: Started, tokens: Tensor) -> Started:
        """Runs the language model on one more token (N,) of each answer."""
        embedded = self._embed(tokens.to(self.device))[:, None]
        streams = tuple(stream.longer() for stream in started.streams)
        if self._fastv is None:
            output = self.model(
                inputs_embeds=embedded,
                attention_mask=streams[0].mask,
                position_ids=streams[0].last[:, None],
                past_key_values=started.cache,
                use_cache=True,
            )
            states = output.last_hidden_state
        else:
            states = embedded
            bounds = (0, self._fastv.layer, len(self.model.layers))
            for stream, first, end in zip(streams, bounds[:-1], bounds[1:], strict=True):
                states = run_layers(self.model, states, stream.mask, stream.last[:, None], started.cache, first, end)
            states = self.model.norm(states)
        return Started(self.head(states[:, -1]), started.cache, streams)

    @torch.no_grad()
    def first_logits(self, images: Sequence[Tensor], questions: Questions) -> Tensor:
        """Returns the logits (all questions, vocabulary) float32 of the first token of every answer."""
        parts = [self.start(prompt).logits.float().cpu() for prompt in self._prompts(images, questions)]
        return torch.cat(parts)

    @torch.no_grad()
    def answers(self, images: Sequence[Tensor], questions: Questions) -> Tensor:
        """Answers by greedy decoding.

        Args:
            images: B times image tokens (n, D).
            questions: What is asked about each.

        Returns:
            (all questions, max_new_tokens) int64 token numbers, ABSENT after the end.
        """
        found = [self._decode(prompt) for prompt in self._prompts(images, questions)]
        return torch.cat(found)

    def _prompts(self, images: Sequence[Tensor], questions: Questions) -> list[Prompt]:
        pairs = [(image, text) for image, texts in zip(images, questions.texts, strict=True) for text in texts]
        chunks = [pairs[start : start + SEQUENCES] for start in range(0, len(pairs), SEQUENCES)]
        return [self.prompt([image for image, _ in part], [text for _, text in part]) for part in chunks]

    def _decode(self, prompt: Prompt) -> Tensor:
        ends = torch.tensor(sorted(self._victim.end_tokens), dtype=torch.long)
        written = torch.full((len(prompt.mask), self._victim.max_new_tokens), ABSENT)
        running = torch.ones(len(written), dtype=torch.bool)
        started = self.start(prompt)
        for k in range(written.shape[1]):
            tokens = started.logits.argmax(dim=-1).cpu()
            running &= ~torch.isin(tokens, ends)
            written[running, k] = tokens[running]
            if not bool(running.any()) or k + 1 == written.shape[1]:
                break
            started = self.step(started, tokens)
        return written
