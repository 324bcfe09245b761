"""A victim that answers questions about images, and the texts that it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import ConfigError, DataError
from leakgauge.harness.values.questions import ABSENT, Questions, spread_rows

IMAGE = "<image>"
"""Stands in a prompt for all tokens of the image."""


class Tokenizer(Protocol):
    """What is asked of a tokenizer of transformers."""

    pad_token_id: int | None
    eos_token_id: int | None

    def __call__(self, text: str, /) -> Mapping[str, list[int]]:
        """Returns the token numbers of a text under ``input_ids``."""

    def decode(self, token_ids: list[int], /, *, skip_special_tokens: bool) -> str:
        """Returns the text of token numbers."""


class _TextConfig(Protocol):
    max_position_embeddings: int


class _VisionConfig(Protocol):
    image_size: int


class _Config(Protocol):
    text_config: _TextConfig
    vision_config: _VisionConfig
    image_token_id: int
    image_grid_pinpoints: Sequence[Sequence[int]]
    """Of LLaVA-NeXT alone."""


class _Generation(Protocol):
    bos_token_id: int | None
    pad_token_id: int | None

    def to_diff_dict(self) -> dict[str, object]: ...


class _Features(Protocol):
    pooler_output: Sequence[Tensor]


class _Llava(Protocol):
    """What is asked of a model of transformers, whose parts torch does not type."""

    config: _Config
    generation_config: _Generation
    dtype: torch.dtype

    def get_image_features(self, **inputs: Tensor) -> _Features: ...

    def generate(self, **inputs: Tensor) -> Tensor: ...


def check_asking(prompt: str, max_new_tokens: int) -> None:
    """Raises ConfigError where a prompt lacks the image or the question, or answers would have no token."""
    if not isinstance(prompt, str) or prompt.count(IMAGE) != 1 or prompt.count("{question}") != 1:
        raise ConfigError(
            f"prompt {prompt!r} does not hold {IMAGE} and {{question}} once each",
            where="prompt",
            hint=f"write 'USER: {IMAGE}\\n{{question}} ASSISTANT:', say",
        )
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens = {max_new_tokens!r} is not a whole number above 0", where="max_new_tokens")


@dataclass(frozen=True)
class VisionLanguageVictim(Victim):
    """A vision-language model of transformers (LLaVA's layout), with what is needed to ask it.

    Args:
        model: ``LlavaForConditionalGeneration`` or ``LlavaNextForConditionalGeneration``, in evaluation mode; never
            modified.
        tokenizer: Its tokenizer, as transformers has them.
        prompt: The text given to the model, with ``<image>`` where the image goes and ``{question}``.
        max_new_tokens: Longest answer in tokens; decoding is greedy.
        image_px: Side of the square images that it is fed.
    """

    tokenizer: Tokenizer = field(kw_only=True)
    prompt: str = field(kw_only=True)
    max_new_tokens: int = field(kw_only=True)
    image_px: int = field(kw_only=True)

    def __post_init__(self) -> None:
        check_asking(self.prompt, self.max_new_tokens)

    @property
    def _network(self) -> _Llava:
        return cast(_Llava, self.model)

    @property
    def context(self) -> int:
        """Longest sequence that the language model was made for, answer included."""
        return int(self._network.config.text_config.max_position_embeddings)

    @property
    def end_tokens(self) -> frozenset[int]:
        """Token numbers that end an answer."""
        for config in (self._network.generation_config, self._network.config.text_config):
            found = getattr(config, "eos_token_id", None)
            if found is not None:
                return frozenset(found if isinstance(found, list) else [found])
        return frozenset()

    def text_tokens(self, question: str) -> tuple[list[int], list[int]]:
        """Returns the token numbers of a prompt before and after the image.

        The prompt is cut into tokens as a whole, so that spaces beside the image fall as the model was trained.
        """
        return self._cut(self.tokenizer(self.prompt.replace("{question}", question))["input_ids"])

    def _cut(self, ids: list[int]) -> tuple[list[int], list[int]]:
        image = int(self._network.config.image_token_id)
        if ids.count(image) != 1:
            raise DataError(
                f"a prompt holds {ids.count(image)} image tokens, not one",
                where="question",
                hint=f"keep {IMAGE} out of questions, and give the model's own tokenizer",
            )
        place = ids.index(image)
        return ids[:place], ids[place + 1 :]

    def check_fits(self, image_tokens: int, questions: Questions) -> None:
        """Checks that every question fits into the context beside ``image_tokens`` tokens and an answer.

        Raises:
            DataError: One does not; it is named.
        """
        for text in dict.fromkeys(questions.flat()):
            before, after = self.text_tokens(text)
            length = len(before) + image_tokens + len(after) + self.max_new_tokens
            if length > self.context:
                shown = text if len(text) <= 60 else f"{text[:57]}..."
                raise DataError(
                    f"the question {shown!r} with {image_tokens} image tokens and the answer is {length} tokens long; "
                    f"the context holds {self.context}",
                    where="questions",
                    hint="shorten it, leave it out, or take a victim with a longer context",
                )

    def embed(self, images: Tensor) -> Tensor:
        """Returns the mean image token (B, D) as the language model gets them, in float32."""
        with torch.no_grad():
            found = self._network.get_image_features(**self.vision_inputs(images))
        return torch.stack([tokens.float().mean(dim=0) for tokens in found.pooler_output])

    def predict(self, images: Tensor) -> Tensor:
        """Returns the features (B, D) of images (B, 3, H, W) in [0, 1]; answers take questions, see ``respond``."""
        return self.embed(images)

    def vision_inputs(self, images: Tensor) -> dict[str, Tensor]:
        """Returns ``pixel_values`` of images (B, 3, H, W) in [0, 1], and ``image_sizes`` for LLaVA-NeXT."""
        pixels = self.normalise(images).to(self._network.dtype)
        if not self.tiled:
            return {"pixel_values": pixels}
        sizes = torch.tensor([list(images.shape[2:])] * len(images), device=images.device)
        return {"pixel_values": tiles(self.model, pixels), "image_sizes": sizes}

    @property
    def tiled(self) -> bool:
        """Whether images are cut into tiles (LLaVA-NeXT)."""
        return is_tiled(self.model)

    @torch.no_grad()
    def respond(self, images: Tensor, questions: Questions | None = None) -> Tensor:
        """Returns the answers of the unmodified model through its own ``generate``: (B, Q, L), ABSENT after the end.

        Args:
            images: (B, 3, H, W) in [0, 1].
            questions: What is asked about each.
        """
        if questions is None:
            return self.predict(images)
        repeated = torch.repeat_interleave(images, torch.tensor(questions.counts, device=images.device), dim=0)
        inputs = self.vision_inputs(repeated)
        prompts = self.padded_prompts(questions, int(self.image_tokens(images[:1])), images.device)
        with self._greedy():
            written = self._network.generate(**inputs, **prompts)
        answers = self.ended(written[:, prompts["input_ids"].shape[1] :].cpu())
        answers = torch.nn.functional.pad(answers, (0, self.max_new_tokens - answers.shape[1]), value=ABSENT)
        return spread_rows(answers, questions.counts)

    @property
    def decoding(self) -> str:
        """How answers are written, by the unmodified model and behind a defense alike, and what is not followed."""
        said = f"greedy, at most {self.max_new_tokens} tokens"
        stated = self._network.generation_config.to_diff_dict()
        left = [f"{key} {value}" for key, value in sorted(stated.items()) if not _keeps_the_books(key)]
        return said + (f"; of the checkpoint's generation_config not followed: {', '.join(left)}" if left else "")

    @contextmanager
    def _greedy(self) -> Iterator[None]:
        """Puts plain greedy decoding in place of the checkpoint's generation_config, and that back afterwards.

        Handed to ``generate`` alone, a config would be filled up from the checkpoint's: with a repetition penalty, say.
        """
        from transformers import GenerationConfig  # noqa: PLC0415 - slow to import

        network, own = self._network, self._network.generation_config
        pad = next((t for t in (own.pad_token_id, *sorted(self.end_tokens)) if t is not None), 0)
        network.generation_config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=self.max_new_tokens,
            use_cache=True,
            bos_token_id=own.bos_token_id,
            eos_token_id=sorted(self.end_tokens) or None,
            pad_token_id=pad,
        )
        try:
            yield
        finally:
            network.generation_config = own

    def image_tokens(self, images: Tensor) -> int:
        """Returns how many tokens the unmodified model makes of each of images (B, 3, H, W) of one size."""
        with torch.no_grad():
            found = self._network.get_image_features(**self.vision_inputs(images[:1]))
        return len(found.pooler_output[0])

    def padded_prompts(self, questions: Questions, image_tokens: int, device: torch.device) -> dict[str, Tensor]:
        """Returns ``input_ids`` and ``attention_mask`` of all questions, padded on the left."""
        image = int(self._network.config.image_token_id)
        rows = []
        for text in questions.flat():
            before, after = self.text_tokens(text)
            rows.append([*before, *[image] * image_tokens, *after])
        longest = max(map(len, rows))
        pad = next((t for t in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id) if t is not None), 0)
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
        return {"input_ids": ids, "attention_mask": mask}

    def ended(self, tokens: Tensor) -> Tensor:
        """Returns answers (N, L) with ABSENT from their first end token on."""
        ends = torch.isin(tokens, torch.tensor(sorted(self.end_tokens), dtype=tokens.dtype))
        return tokens.masked_fill(ends.cumsum(dim=1) > 0, ABSENT)

    def read(self, tokens: Sequence[int]) -> str:
        """Returns the text of an answer."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()


def _keeps_the_books(key: str) -> bool:
    """Tells whether an entry of a generation_config names tokens, lengths or versions rather than a way to choose."""
    named = {"bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version"}
    return key in named or key.startswith(("_", "max_", "use_cache", "cache", "return_", "output_"))


def is_tiled(model: nn.Module) -> bool:
    """Tells whether a model cuts images into tiles (LLaVA-NeXT)."""
    return hasattr(model.config, "image_grid_pinpoints")


def tiles(model: nn.Module, pixels: Tensor) -> Tensor:
    """Cuts normalised images (B, 3, H, W) into an overview and tiles, (B, 1 + n, 3, side, side) (LLaVA-NeXT).

    The best of the model's ``image_grid_pinpoints`` is filled as the image processor of transformers does it: resized
    bicubically to fit, and padded around with zeros; here after normalisation.
    """
    from transformers.image_processing_utils import select_best_resolution  # noqa: PLC0415 - slow to import

    config = cast(_Llava, model).config
    side = int(config.vision_config.image_size)
    height, width = pixels.shape[2:]
    rows, columns = select_best_resolution((height, width), config.image_grid_pinpoints)
    scale = min(rows / height, columns / width)
    fitted = (min(round(height * scale), rows), min(round(width * scale), columns))
    top, left = (rows - fitted[0]) // 2, (columns - fitted[1]) // 2
    canvas = pixels.new_zeros(len(pixels), 3, rows, columns)
    canvas[:, :, top : top + fitted[0], left : left + fitted[1]] = _resized(pixels, fitted)
    grid = canvas.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    return torch.cat([_resized(pixels, (side, side))[:, None], grid], dim=1)


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    resized = torch.nn.functional.interpolate(pixels.float(), size, mode="bicubic", antialias=True, align_corners=False)
    return resized.to(pixels.dtype)
