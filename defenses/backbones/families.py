"""Finds the adapter for a model."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from leakgauge.defenses.backbones.backbone import Backbone
from leakgauge.defenses.backbones.hf_backbone import SUPPORTED as TRANSFORMERS
from leakgauge.defenses.backbones.timm_vit import SUPPORTED as TIMM
from leakgauge.defenses.backbones.timm_vit import TimmViT
from leakgauge.harness.errors import VictimError

SUPPORTED = (TIMM, TRANSFORMERS)


class Adapter(Protocol):
    """The class of an adapter."""

    def accepts(self, model: nn.Module) -> bool:
        """Whether ``model`` is of this family; one with exotic parts is still refused, with the reason."""

    def __call__(self, model: nn.Module) -> Backbone:
        """Returns the adapter for ``model``; raises VictimError where it does not run it exactly."""


def _adapters(model: nn.Module) -> tuple[Adapter, ...]:
    """Returns the adapters to try; those for transformers, slow to import, only for a model from there."""
    if not type(model).__module__.startswith("transformers."):
        return (TimmViT,)
    from leakgauge.defenses.backbones.hf_clip import HfClip  # noqa: PLC0415
    from leakgauge.defenses.backbones.hf_dinov2 import HfDinov2, HfDinov2WithRegisters  # noqa: PLC0415
    from leakgauge.defenses.backbones.hf_llava import HfLlava  # noqa: PLC0415
    from leakgauge.defenses.backbones.hf_siglip import HfSiglip  # noqa: PLC0415
    from leakgauge.defenses.backbones.hf_vit import HfViT  # noqa: PLC0415

    return HfViT, HfDinov2, HfDinov2WithRegisters, HfClip, HfSiglip, HfLlava


def adapt(model: nn.Module) -> Backbone:
    """Returns the adapter that runs ``model`` exactly.

    Raises:
        VictimError: No family supports the model; the message names it and lists what is supported.
    """
    for adapter in _adapters(model):
        if adapter.accepts(model):
            return adapter(model)
    raise VictimError(
        f"unsupported victim {type(model).__name__}: no adapter runs it",
        where="victim",
        hint=f"supported: {'; '.join(SUPPORTED)}",
    )
