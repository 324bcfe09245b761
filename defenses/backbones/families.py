"""Finds the adapter for a model."""

from __future__ import annotations

from torch import nn

from defenses.backbones.backbone import Backbone
from defenses.backbones.timm_vit import SUPPORTED as TIMM
from defenses.backbones.timm_vit import TimmViT
from harness.errors import ConfigError

SUPPORTED = (TIMM,)


def adapt(model: nn.Module) -> Backbone:
    """Returns the adapter that runs ``model`` exactly.

    Raises:
        ConfigError: No family supports the model; the message names it and lists what is supported.
    """
    if TimmViT.accepts(model):
        return TimmViT(model)
    raise ConfigError(
        f"unsupported victim {type(model).__name__}: no adapter runs it",
        where="victim",
        mend=f"supported: {'; '.join(SUPPORTED)}",
    )
