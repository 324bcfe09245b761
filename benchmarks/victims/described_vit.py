"""Writes a user's own vision transformer as a folder that says all that is needed to build it again, and reads one.

timm keeps no record of the arguments that a ``VisionTransformer`` was built with; they are read off its modules. What
was read is believed only if a model built from it, with the same weights, gives the same outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from timm.layers import GELUTanh, GluMlp, LayerNorm, Mlp, QuickGELU, RmsNorm, SwiGLU
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn

from leakgauge.harness.errors import DataError, VictimError

DESCRIPTION, WEIGHTS = "model.json", "model.safetensors"
SAME = 1e-6
"""Largest difference of outputs, as a share of the largest, between a model and the one that is built again."""
_CLASSES: dict[str, type[nn.Module]] = {
    "VisionTransformer": VisionTransformer,
    "VisionTransformerDistilled": VisionTransformerDistilled,
}
_NORMS: dict[str, type[nn.Module]] = {"LayerNorm": LayerNorm, "torch LayerNorm": nn.LayerNorm, "RmsNorm": RmsNorm}
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "GELU": nn.GELU,
    "QuickGELU": QuickGELU,
    "GELUTanh": GELUTanh,
    "SiLU": nn.SiLU,
    "ReLU": nn.ReLU,
}
_MLPS: dict[str, type[nn.Module]] = {"Mlp": Mlp, "GluMlp": GluMlp, "SwiGLU": SwiGLU}
_BLOCKS: dict[str, type[nn.Module]] = {"Block": Block, "ResPostBlock": ResPostBlock}
_CHOICES: dict[str, dict[str, type[nn.Module]]] = {
    "norm_layer": _NORMS,
    "act_layer": _ACTIVATIONS,
    "mlp_layer": _MLPS,
    "block_fn": _BLOCKS,
}
_MOST: dict[str, int] = {
    **{"img_size": 4096, "patch_size": 4096, "num_classes": 1_000_000, "embed_dim": 16_384, "depth": 256},
    **{"num_heads": 1024, "mlp_ratio": 64, "reg_tokens": 1024},
}
"""What numbers of a description may be at most: a changed file must not take all memory."""
_HINT = "rebuild it as a plain VisionTransformer, or save its weights for task imagefolder"


def _name_of(kind: str, module: nn.Module) -> str:
    for name, known in _CHOICES[kind].items():
        if type(module) is known:
            return name
    raise VictimError(f"{type(module).__name__} cannot be written down ({kind})", where="model", hint=_HINT)


def _there(module: nn.Module | None) -> bool:
    return module is not None and not isinstance(module, nn.Identity)


def arguments_of(model: Any) -> dict[str, Any]:
    """Reads off a timm VisionTransformer what it was built with, as plain data.

    Raises:
        VictimError: A part of it is not one of those that can be written down.
    """
    block, patch = model.blocks[0], model.patch_embed
    normed = block.norm1
    found: dict[str, Any] = {
        "img_size": list(patch.img_size),
        "patch_size": patch.patch_size[0],
        # A head that was replaced for fine-tuning leaves `num_classes` as it was.
        "num_classes": int(getattr(model.head, "out_features", model.num_classes)),
        "global_pool": model.global_pool,
        "embed_dim": int(model.embed_dim),
        "depth": len(model.blocks),
        "num_heads": int(block.attn.num_heads),
        "mlp_ratio": block.mlp.fc2.in_features / model.embed_dim,
        "qkv_bias": block.attn.qkv.bias is not None,
        "qk_norm": _there(block.attn.q_norm),
        "scale_attn_norm": _there(block.attn.norm),
        "scale_mlp_norm": _there(getattr(block.mlp, "norm", None)),
        "proj_bias": block.attn.proj.bias is not None,
        "init_values": 1e-5 if _there(getattr(block, "ls1", None)) else None,
        "class_token": model.cls_token is not None,
        "pos_embed": "none" if model.pos_embed is None else "learn",
        "no_embed_class": bool(model.no_embed_class),
        "pre_norm": _there(model.norm_pre),
        "final_norm": _there(model.norm) or _there(model.fc_norm),
        "fc_norm": _there(model.fc_norm),
        "pool_include_prefix": bool(model.pool_include_prefix),
        "block_fn": _name_of("block_fn", block),
        "norm_layer": _name_of("norm_layer", normed),
        "norm_eps": float(getattr(normed, "eps", 0.0)),
        "act_layer": _name_of("act_layer", block.mlp.act),
        "mlp_layer": _name_of("mlp_layer", block.mlp),
    }
    if isinstance(block.mlp, GluMlp):
        found["mlp_ratio"] = block.mlp.fc1.out_features / model.embed_dim
    if not isinstance(model, VisionTransformerDistilled):
        found["reg_tokens"] = int(model.num_reg_tokens)
    return found


def build(kind: str, arguments: dict[str, Any]) -> Any:
    """Builds the model that arguments describe, on the meta device: load its weights with ``assign=True``.

    Raises:
        DataError: They describe none.
    """
    options = dict(arguments)
    try:
        for name, most in _MOST.items():
            values = options.get(name, most)
            if any(not 0 <= value <= most for value in (values if isinstance(values, list) else [values])):
                raise ValueError(f"{name} = {str(values)[:20]} is not from 0 to {most}")  # noqa: TRY301 - told below
        made: dict[str, Any] = {name: known[str(options.pop(name))] for name, known in _CHOICES.items()}
        made["norm_layer"] = partial(made["norm_layer"], eps=float(options.pop("norm_eps")))
        with torch.device("meta"):
            return _CLASSES[kind](**options, **made, weight_init="skip", dynamic_img_size=False)
    except (KeyError, TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0][:100]
        raise DataError(
            f"describes no model: {said}", where=DESCRIPTION, hint="write it again with measure()"
        ) from error


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a user's model into evaluation mode for a while, and back as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _compared(model: Any, rebuilt: Any, images: Tensor) -> None:
    """Refuses a model that its twin does not answer like, on the same device: the same sums, so that nearly is not."""
    first = next(model.parameters())
    shown = images.to(first.device, first.dtype)
    with _evaluating(model):
        wanted = model(shown).float()
    with torch.no_grad():
        got = rebuilt.to(first.device, first.dtype).eval()(shown).float()
    if got.shape != wanted.shape or not torch.allclose(got, wanted, rtol=0, atol=SAME * float(wanted.abs().max())):
        what = "a model built anew with its weights answers otherwise: it does more than its modules say"
        raise VictimError(what, where="model", hint=_HINT)


def describe(model: nn.Module, images: Tensor) -> tuple[dict[str, Any], bytes]:
    """Returns a model as plain data and its weights as bytes; the model stays as it is.

    Args:
        model: A timm VisionTransformer, on whatever device.
        images: (B, 3, H, W) normalised images, on which the model built anew must agree with it.

    Raises:
        VictimError: It is of another kind, or does more than can be written down.
    """
    kind = next((name for name, known in _CLASSES.items() if type(model) is known), None)
    if kind is None:
        what = f"{type(model).__name__} is not timm's VisionTransformer"
        raise VictimError(what, where="model", hint="build one with timm.create_model, or use task imagefolder")
    kinds = {str(tensor.dtype) for tensor in model.parameters()}
    if len(kinds) != 1:
        raise VictimError(f"its weights are of {len(kinds)} number types", where="model", hint="make them one")
    try:
        arguments = arguments_of(model)
    except (AttributeError, IndexError) as error:
        raise VictimError("its blocks are not of a kind that is known", where="model", hint=_HINT) from error
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    bad = next((name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())), None)
    if bad is not None:
        raise VictimError(f"{bad!r} holds NaN or infinite values", where="model", hint="train it anew")
    rebuilt = build(kind, arguments)
    try:
        rebuilt.load_state_dict(state, assign=True)
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip()[:110]
        raise VictimError(f"it has parts that cannot be written down: {said}", where="model", hint=_HINT) from error
    _compared(model, rebuilt, images)
    return {"kind": kind, "arguments": arguments}, save(state)


def rebuild(description: dict[str, Any], weights: bytes) -> nn.Module:
    """Builds a model from what ``describe`` returned, in evaluation mode.

    Raises:
        DataError: It is damaged.
    """
    arguments = description.get("arguments")
    if not isinstance(arguments, dict):
        raise DataError("holds no `arguments`", where=DESCRIPTION, hint="write it again with measure()")
    model = build(str(description.get("kind")), arguments)
    try:
        state = load(weights)
        kind = next(iter(state.values())).dtype
        model.to(kind).load_state_dict(state, assign=True)
    except (SafetensorError, RuntimeError, StopIteration) as error:
        said = str(error).splitlines()[-1].strip()[:100] if str(error) else type(error).__name__
        raise DataError(
            f"the weights do not fit: {said}", where=WEIGHTS, hint="write them again with measure()"
        ) from error
    rebuilt: nn.Module = model.eval()
    return rebuilt
