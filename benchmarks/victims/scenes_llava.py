"""The victim of ``scenes_vqa``: a small LLaVA of transformers' own classes, and loading of the shipped weights."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from leakgauge.benchmarks.tasks.drawn_scenes.scenes import SCENE_PX
from leakgauge.benchmarks.victims.scenes_tokenizer import (
    BOS_ID,
    EOS_ID,
    IMAGE_ID,
    PAD_ID,
    VOCABULARY,
    build_tokenizer,
    prompt,
)
from leakgauge.benchmarks.victims.shipped_weights import load_shipped
from leakgauge.harness.contracts.vision_language import VisionLanguageVictim

MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
PATCH_PX = 8
IMAGE_TOKENS = (SCENE_PX // PATCH_PX) ** 2
WEIGHTS = "scenes_llava.safetensors"


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


def scenes_victim(model: LlavaForConditionalGeneration, weights_hash: str) -> VisionLanguageVictim:
    """Returns the network as a victim that answers in one word, at most two tokens and the one that ends them."""
    return VisionLanguageVictim(
        model=model.eval().requires_grad_(False),
        mean=MEAN,
        std=STD,
        weights_hash=weights_hash,
        name="llava, clip 6x160 with 8-px patches, llama 4x192, 64 px",
        tokenizer=build_tokenizer(),
        prompt=prompt("{question}", 1),
        max_new_tokens=3,
        image_px=SCENE_PX,
    )


def load_scenes_llava(path: Path | None = None) -> VisionLanguageVictim:
    """Loads the shipped weights (fp16 on disk, fp32 in memory).

    Args:
        path: Other weights of the same architecture; None takes the shipped ones.

    Raises:
        DataError: The file is missing, corrupt, or of another architecture.
    """
    return scenes_victim(*load_shipped(build_scenes_llava, WEIGHTS, "train_scenes_llava.py", path))
