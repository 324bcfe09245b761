"""Adapter for the image half of LLaVA of transformers: the tower up to the layer that is used, and the projector."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, LlavaNextForConditionalGeneration

from leakgauge.defenses.backbones.backbone import Backbone, Projected, size_weighted_mean
from leakgauge.defenses.backbones.hf_backbone import HfBackbone
from leakgauge.defenses.backbones.hf_clip import HfClip
from leakgauge.defenses.backbones.hf_siglip import HfSiglip
from leakgauge.harness.contracts.vision_language import is_tiled, tiles
from leakgauge.harness.errors import VictimError
from leakgauge.harness.values.tokens import DROPPED, TokenBatch, packed_rows


class _FeatureSiglip(HfSiglip):
    """A SigLIP of which only the tokens are used, so that it may come without its pooling head."""

    def _check_head(self) -> None:
        pass


class HfLlava(Backbone):
    """LlavaForConditionalGeneration and LlavaNextForConditionalGeneration, without their language model.

    The blocks are those before ``vision_feature_layer``; what lies behind is never run. LLaVA-NeXT runs every tile of
    an image as an image of its own.

    Args:
        model: The victim's network, in evaluation mode; read, never modified.

    Attributes:
        drops_class_token: Whether the language model gets the patch tokens alone (strategy ``default``).
        tiled: Whether images are cut into tiles.

    Raises:
        VictimError: It is not one that this adapter runs exactly.
    """

    classes: ClassVar[tuple[type[nn.Module], ...]] = (LlavaForConditionalGeneration, LlavaNextForConditionalGeneration)

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = cast(Any, model)
        config = self.model.config
        if not isinstance(config.vision_feature_layer, int):
            raise _refusal(model, "it joins the tokens of several layers of its tower (`vision_feature_layer`)")
        try:
            tower, self._projector = self.model.model.vision_tower, self.model.model.multi_modal_projector
        except AttributeError as error:
            raise _refusal(model, f"transformers {version('transformers')} builds it differently ({error})") from error
        self._tower = _tower_adapter(model, tower)
        layer, layers = config.vision_feature_layer, self._tower.depth
        self.depth = layer if layer >= 0 else layers + 1 + layer
        if not 1 <= self.depth <= layers:
            raise _refusal(model, f"`vision_feature_layer` {layer} is none of its {layers} blocks")
        self.prefix, self.width = self._tower.prefix, self._tower.width
        self.class_token, self.pools_patches = self._tower.class_token, False
        self.drops_class_token, self.tiled = config.vision_feature_select_strategy == "default", is_tiled(model)
        if self.drops_class_token and not self.prefix:
            raise _refusal(model, "strategy `default` drops the first patch of a tower that has no class token")
        if self.tiled and self.prefix and not self.drops_class_token:
            raise _refusal(model, "strategy `full` leaves class tokens among the patches of its tiles")
        self.grid, self.image_size = self._tower.grid, self._tower.image_size
        self.dtype: torch.dtype = next(self._projector.parameters()).dtype

    @classmethod
    def accepts(cls, model: nn.Module) -> bool:
        """Whether ``model`` is of this family."""
        return isinstance(model, cls.classes)

    def blocks(self) -> Sequence[nn.Module]:
        """Returns the model's own blocks."""
        return self._tower.blocks()[: self.depth]

    def embed(self, images: Tensor) -> TokenBatch:
        """Embeds normalised images (B, 3, H, W); of LLaVA-NeXT every tile of each, overview first."""
        if self.tiled:
            images = tiles(self.model, images).flatten(0, 1)
        return self._tower.embed(images)

    def project(self, layer: int, tokens: Tensor) -> Projected:
        """Returns the attention inputs of block ``layer`` for tokens (T, D)."""
        return self._tower.project(layer, tokens)

    def scale(self, layer: int) -> float:
        """Returns the factor on the attention logits of a block."""
        return self._tower.scale(layer)

    def output(self, layer: int, context: Tensor, gate: Tensor | None) -> Tensor:
        """Projects attention results (T, H, d) to what the block adds to its tokens: (T, D)."""
        return self._tower.output(layer, context, gate)

    def mlp(self, layer: int, tokens: Tensor) -> Tensor:
        """Returns what the MLP half of a block adds to its tokens (T, D)."""
        return self._tower.mlp(layer, tokens)

    def finish(self, batch: TokenBatch) -> Tensor:
        """Returns the mean projected token (B, D); the language model reads them all instead."""
        return size_weighted_mean(self.project_tokens(self.select_tokens(batch)), with_prefix=True)

    def select_tokens(self, batch: TokenBatch) -> TokenBatch:
        """Takes the class token off where the language model does not get it."""
        if not self.drops_class_token:
            return batch
        keep = torch.ones(len(batch.tokens), dtype=torch.bool, device=batch.tokens.device)
        for k in range(batch.prefix):
            keep[batch.offsets[:-1] + k] = False
        merge_map = torch.where(batch.merge_map == DROPPED, batch.merge_map, batch.merge_map - batch.prefix)
        return TokenBatch(batch.tokens[keep], batch.lengths - batch.prefix, batch.sizes[keep], merge_map, 0)

    def project_tokens(self, batch: TokenBatch) -> TokenBatch:
        """Maps every token to the language model's width."""
        projected: Tensor = self._projector(batch.tokens)
        return batch.with_tokens(projected)


def joined_tiles(batch: TokenBatch, count: int) -> TokenBatch:
    """Joins the tokens of every ``count`` consecutive tiles, without protected tokens, to those of one image."""
    lengths = batch.lengths.view(-1, count)
    before = lengths.cumsum(dim=1) - lengths
    maps = batch.merge_map.view(len(lengths), count, -1)
    maps = torch.where(maps == DROPPED, maps, maps + before[..., None]).flatten(1)
    return TokenBatch(batch.tokens, lengths.sum(dim=1), batch.sizes, maps, batch.prefix)


def tokens_of_images(batch: TokenBatch) -> list[Tensor]:
    """Returns the tokens (n, D) of each image."""
    index = torch.arange(len(batch), device=batch.lengths.device)
    return list(torch.split(batch.tokens[packed_rows(batch.lengths, index)], batch.lengths.tolist()))


def _tower_adapter(model: nn.Module, tower: nn.Module) -> HfBackbone:
    for adapter in (HfClip, _FeatureSiglip):
        if adapter.accepts(tower):
            return adapter(tower)
    raise _refusal(model, f"its image tower is {type(tower).__name__}, neither CLIP nor SigLIP")


def _refusal(model: nn.Module, reason: str) -> VictimError:
    return VictimError(
        f"unsupported victim {type(model).__name__}: {reason}",
        where="victim",
        hint="take a LLaVA-1.5 or LLaVA-NeXT of transformers with a CLIP or SigLIP tower",
    )
