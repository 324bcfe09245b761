"""The victim of ``scenes_vqa``: a small LLaVA of transformers' own classes, and loading of the shipped weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from benchmarks.tasks.scenes import SCENE_PX
from benchmarks.victims.scenes_tokenizer import (
    BOS_ID,
    EOS_ID,
    IMAGE_ID,
    PAD_ID,
    VOCABULARY,
    build_tokenizer,
    encode_prompts,
    prompt,
)
from harness.errors import DataError
from harness.vision_language import VisionLanguageVictim

MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
PATCH_PX = 8
IMAGE_TOKENS = (SCENE_PX // PATCH_PX) ** 2
WEIGHTS = "scenes_llava.safetensors"


@dataclass(frozen=True)
class SceneLlava:
    """The victim with what is needed to feed it.

    Args:
        model: The network in evaluation mode; never modified.
        tokenizer: Its tokenizer, padding on the left.
        mean: Per-channel mean that normalises images in [0, 1].
        std: Per-channel standard deviation, likewise.
        weights_hash: SHA-256 of the weights, first 16 hex digits.
        name: Architecture name, for reports.
    """

    model: LlavaForConditionalGeneration
    tokenizer: PreTrainedTokenizerFast
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights_hash: str
    name: str

    def normalise(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, 64, 64) in [0, 1] to the model's input range."""
        return normalise(images)

    @torch.no_grad()
    def logits(self, images: Tensor, questions: Sequence[str]) -> Tensor:
        """Returns the logits (B, vocabulary) of the answer's first token.

        Args:
            images: (B, 3, 64, 64) in [0, 1].
            questions: B texts, one for each image.
        """
        prompts = encode_prompts(self.tokenizer, questions, IMAGE_TOKENS)
        output = self.model(pixel_values=self.normalise(images), logits_to_keep=1, use_cache=False, **prompts)
        last: Tensor = output.logits[:, -1]
        return last

    def answer(self, images: Tensor, questions: Sequence[str]) -> list[str]:
        """Returns B answers of one word, the likeliest first token each; arguments as for ``logits``."""
        return [VOCABULARY[token] for token in self.logits(images, questions).argmax(dim=1).tolist()]

    @torch.no_grad()
    def generate(self, images: Tensor, questions: Sequence[str]) -> list[str]:
        """Returns B answers as greedy decoding through ``model.generate`` gives them; arguments as for ``logits``."""
        prompts = encode_prompts(self.tokenizer, questions, IMAGE_TOKENS)
        tokens = self.model.generate(
            pixel_values=self.normalise(images), do_sample=False, max_new_tokens=3, use_cache=True, **prompts
        )
        written = tokens[:, prompts["input_ids"].shape[1] :]
        answers: list[str] = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return answers


def normalise(images: Tensor) -> Tensor:
    """Maps images (B, 3, H, W) in [0, 1] to the model's input range."""
    return (images - MEAN[0]) / STD[0]


def scenes_llava_config() -> LlavaConfig:
    """Returns the architecture: LLaVA-1.5's layout, with a CLIP of 6 x 160 and a Llama of 4 x 192.

    As in LLaVA-1.5 the tokens are taken before the last layer of the vision tower, without the class token. The last
    layer is therefore never trained; it stays as it was initialised.
    """
    vision = CLIPVisionConfig(
        hidden_size=160,
        intermediate_size=640,
        projection_dim=160,
        num_hidden_layers=6,
        num_attention_heads=5,
        image_size=SCENE_PX,
        patch_size=PATCH_PX,
    )
    text = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        max_position_embeddings=128,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_ID,
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def build_scenes_llava(attention: str = "sdpa") -> LlavaForConditionalGeneration:
    """Returns the untrained network; ``attention`` is an implementation that transformers knows."""
    config = scenes_llava_config()
    config._attn_implementation = attention
    model = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id = PAD_ID
    model.generation_config.bos_token_id = BOS_ID
    model.generation_config.eos_token_id = EOS_ID
    return model


def load_scenes_llava(path: Path | None = None) -> SceneLlava:
    """Loads the shipped weights (fp16 on disk, fp32 in memory).

    Args:
        path: Other weights of the same architecture; None takes the shipped ones.

    Raises:
        DataError: The file is missing, corrupt, or of another architecture.
    """
    where = str(path or f"benchmarks/victims/{WEIGHTS}")
    try:
        data = path.read_bytes() if path else (files("benchmarks.victims") / WEIGHTS).read_bytes()
        model = build_scenes_llava()
        model.load_state_dict({name: tensor.float() for name, tensor in load_safetensors(data).items()})
    except FileNotFoundError as error:
        raise DataError(
            "victim weights are missing", where=where, mend="reinstall, or run benchmarks/victims/train_scenes_llava.py"
        ) from error
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(f"victim weights cannot be loaded: {error}", where=where, mend="restore the file") from error
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise DataError("victim weights hold NaN or infinite values", where=where, mend="restore the file")
    return SceneLlava(
        model=model.eval().requires_grad_(False),
        tokenizer=build_tokenizer(),
        mean=MEAN,
        std=STD,
        weights_hash=hashlib.sha256(data).hexdigest()[:16],
        name="llava, clip 6x160 with 8-px patches, llama 4x192, 64 px",
    )


def vision_language_victim(found: SceneLlava) -> VisionLanguageVictim:
    """Returns the victim as the harness asks it: answers of one word, and the token that ends them."""
    return VisionLanguageVictim(
        found.model,
        found.mean,
        found.std,
        found.weights_hash,
        found.name,
        tokenizer=found.tokenizer,
        prompt=prompt("{question}", 1),
        max_new_tokens=3,
        image_px=SCENE_PX,
    )
