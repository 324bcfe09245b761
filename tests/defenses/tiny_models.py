"""Tiny untrained victims of every supported family: 56 px, 16 patches of 14 px, 3 blocks of width 64, 4 heads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
import transformers
from timm.layers.attention import Attention
from timm.models.vision_transformer import ResPostBlock
from torch import nn

from leakgauge.harness.contracts.victim import Victim

PX, PATCH, WIDTH, DEPTH, HEADS = 56, 14, 64, 3, 4
SHRUNK = {
    "img_size": PX,
    "patch_size": PATCH,
    "embed_dim": WIDTH,
    "depth": DEPTH,
    "num_heads": HEADS,
    "num_classes": 5,
}
HF = {
    "image_size": PX,
    "patch_size": PATCH,
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
}
WIDE = HF | {"intermediate_size": 96}


def from_timm(name: str, **options: Any) -> nn.Module:
    return timm.create_model(name, pretrained=False, **SHRUNK | options)


def gated() -> nn.Module:
    """No option of VisionTransformer reaches the gate, so that the attention is put in by hand."""
    model = from_timm("vit_tiny_patch16_224")
    for block in model.blocks:
        block.attn = Attention(WIDTH, HEADS, qkv_bias=True, gated=True, norm_layer=nn.LayerNorm, scale_norm=True)
    return model


def vit(kind: str, *, pooler: bool = True, **options: Any) -> nn.Module:
    config = transformers.ViTConfig(**WIDE, num_labels=5, **options)
    return transformers.ViTModel(config, pooler) if kind == "ViTModel" else getattr(transformers, kind)(config)


def dinov2(kind: str, **options: Any) -> nn.Module:
    family = "Dinov2WithRegistersConfig" if "Registers" in kind else "Dinov2Config"
    config = getattr(transformers, family)(**HF, mlp_ratio=2, num_labels=5, **options)
    return getattr(transformers, kind)(config)


def two_towers(kind: str, **options: Any) -> nn.Module:
    """CLIP and SigLIP: the classifier takes the config of both towers, the rest that of the image tower."""
    family = "CLIP" if kind.startswith("CLIP") else "Siglip"
    vision = WIDE | ({"projection_dim": 24} if family == "CLIP" else {}) | options
    if kind.endswith("ForImageClassification"):
        text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = getattr(transformers, f"{family}Config")(vision_config=vision, text_config=text, num_labels=5)
    else:
        config = getattr(transformers, f"{family}VisionConfig")(**vision)
    return getattr(transformers, kind)(config)


HF_MODELS: dict[str, Callable[[], nn.Module]] = {
    "ViTModel": partial(vit, "ViTModel"),
    "ViTModel without pooler": partial(vit, "ViTModel", pooler=False),
    "ViTModel without qkv bias": partial(
        vit, "ViTModel", qkv_bias=False, hidden_act="relu", attn_implementation="eager"
    ),
    "ViTForImageClassification": partial(vit, "ViTForImageClassification"),
    "Dinov2Model": partial(dinov2, "Dinov2Model"),
    "Dinov2ForImageClassification": partial(dinov2, "Dinov2ForImageClassification"),
    "Dinov2 with SwiGLU": partial(dinov2, "Dinov2ForImageClassification", use_swiglu_ffn=True, drop_path_rate=0.2),
    "Dinov2WithRegistersModel": partial(dinov2, "Dinov2WithRegistersModel"),
    "Dinov2WithRegistersForImageClassification": partial(
        dinov2, "Dinov2WithRegistersForImageClassification", num_register_tokens=3
    ),
    "CLIPVisionModel": partial(two_towers, "CLIPVisionModel"),
    "CLIPVisionModelWithProjection": partial(two_towers, "CLIPVisionModelWithProjection"),
    "CLIPForImageClassification": partial(two_towers, "CLIPForImageClassification"),
    "SiglipVisionModel": partial(two_towers, "SiglipVisionModel"),
    "SiglipForImageClassification": partial(two_towers, "SiglipForImageClassification"),
}
BARE = {"class_token": False}
TIMM_MODELS: dict[str, Callable[[], nn.Module]] = {
    "vit": partial(from_timm, "vit_tiny_patch16_224"),
    "deit distilled": partial(from_timm, "deit_tiny_distilled_patch16_224"),
    "deit3": partial(from_timm, "deit3_small_patch16_224"),
    "mae": partial(from_timm, "vit_base_patch16_224.mae", global_pool="avg"),
    "clip": partial(from_timm, "vit_base_patch32_clip_224"),
    "siglip": partial(from_timm, "vit_base_patch16_siglip_224"),
    "no class token, avg": partial(from_timm, "vit_tiny_patch16_224", global_pool="avg", **BARE),
    "no class token, map": partial(from_timm, "vit_tiny_patch16_224", global_pool="map", **BARE),
    "no class token, max": partial(from_timm, "vit_tiny_patch16_224", global_pool="max", **BARE),
    "no class token, avgmax": partial(from_timm, "vit_tiny_patch16_224", global_pool="avgmax", **BARE),
    "class token in the mean": partial(
        from_timm, "vit_tiny_patch16_224", global_pool="avg", pool_include_prefix=True, fc_norm=False
    ),
    "qk_norm": partial(from_timm, "vit_tiny_patch16_224", qk_norm=True),
    "res-post-norm": partial(from_timm, "vit_tiny_patch16_224", block_fn=ResPostBlock, init_values=0.5),
    "norms within": partial(from_timm, "vit_tiny_patch16_224", scale_attn_norm=True, scale_mlp_norm=True),
    "dinov2": partial(from_timm, "vit_small_patch14_dinov2"),
    "dinov2 with registers": partial(from_timm, "vit_small_patch14_reg4_dinov2"),
    "gated": gated,
}
MODELS = TIMM_MODELS | HF_MODELS


@torch.no_grad()
def perturb(model: nn.Module) -> nn.Module:
    """Moves biases, norms, scales and embeddings away from zero and one, so that none can be forgotten unseen."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() >= 2:  # drawn anew: the initial weights are so small that attention is all but uniform
            parameter.copy_(noise * (0.5 if parameter.shape[0] == 1 else parameter[0].numel() ** -0.5))
        else:
            base = 0.5 if bool((parameter.abs() < 0.1).all()) and bool((parameter != 0).any()) else parameter
            parameter.copy_(base + 0.2 * noise)
    return model.eval()


def tiny_victim(name: str) -> Victim:
    torch.manual_seed(0)
    return Victim(perturb(MODELS[name]()), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25), "none", name)
