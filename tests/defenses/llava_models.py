"""Small random LLaVAs in the layouts of LLaVA-1.5 and LLaVA-NeXT, with a tokenizer of whole words."""

from __future__ import annotations

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    SiglipVisionConfig,
)

from leakgauge.benchmarks.victims.scenes_tokenizer import (
    BOS_ID,
    EOS_ID,
    IMAGE_ID,
    PAD_ID,
    VOCABULARY,
    build_tokenizer,
    prompt,
)
from leakgauge.harness.contracts.vision_language import VisionLanguageVictim
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.questions import Questions

TEXTS = ("how many circles are there?", "is the red circle left of the blue square?", "what colour is the thing?")


def text_config(**options) -> LlamaConfig:
    """A Llama of 3 x 64 with rotary positions; its heads share keys, as larger models' do."""
    return LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        **options,
    )


def clip(px: int, patch: int, layers: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=48,
        intermediate_size=64,
        projection_dim=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        image_size=px,
        patch_size=patch,
    )


def siglip(px: int, patch: int, layers: int) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        image_size=px,
        patch_size=patch,
        vision_use_head=False,
    )


def wrapped(model, px: int, max_new_tokens: int = 5) -> VisionLanguageVictim:
    """Gives a random model what a victim needs; spread weights, so that answers differ."""
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = PAD_ID, EOS_ID
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    return VisionLanguageVictim(
        model.eval(),
        (0.5, 0.5, 0.5),
        (0.25, 0.25, 0.25),
        "random",
        "random llava",
        tokenizer=build_tokenizer(),
        prompt=prompt("{question}", 1),
        max_new_tokens=max_new_tokens,
        image_px=px,
    )


def llava(vision, layer: int = -2, strategy: str = "default", **text) -> VisionLanguageVictim:
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=vision,
        text_config=text_config(**text),
        image_token_index=IMAGE_ID,
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategy,
    )
    return wrapped(LlavaForConditionalGeneration(config), vision.image_size)


def llava_next(px: int, tile: int = 56, pinpoints=((56, 112), (112, 56), (112, 112))) -> VisionLanguageVictim:
    torch.manual_seed(0)
    config = LlavaNextConfig(
        vision_config=clip(tile, 14, 4),
        text_config=text_config(),
        image_token_index=IMAGE_ID,
        image_grid_pinpoints=[list(p) for p in pinpoints],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    return wrapped(LlavaNextForConditionalGeneration(config), px)


def noise_images(count: int, px: int) -> ImageSet:
    """Images of random blocks, all different."""
    blocks = torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return ImageSet.from_pixels(torch.nn.functional.interpolate(blocks, (px, px)))


def questions_for(count: int) -> Questions:
    """Different questions, and different numbers of them, for each image."""
    return Questions(tuple(TEXTS[i % 2 : i % 2 + 1 + i % 3] for i in range(count)))


def plain_logits(victim: VisionLanguageVictim, images: ImageSet, questions: Questions) -> torch.Tensor:
    """The logits of every answer's first token by the model's own forward, one question at a time, unpadded."""
    rows = []
    for i, texts in enumerate(questions.texts):
        pixels = images.select([i]).images()
        for text in texts:
            asked = victim.padded_prompts(Questions(((text,),)), victim.image_tokens(pixels), pixels.device)
            with torch.no_grad():
                rows.append(victim.model(**victim.vision_inputs(pixels), **asked).logits[0, -1])
    return torch.stack(rows).float()
