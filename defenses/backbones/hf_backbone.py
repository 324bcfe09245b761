"""What the adapters for vision models of transformers share. Imports no transformers: that takes seconds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from leakgauge.defenses.backbones.backbone import Backbone, Projected, dtype_of_weights
from leakgauge.harness.errors import VictimError
from leakgauge.harness.values.tokens import TokenBatch

SUPPORTED = (
    "transformers ViTModel, ViTForImageClassification, Dinov2Model, Dinov2ForImageClassification, "
    "Dinov2WithRegistersModel, Dinov2WithRegistersForImageClassification, CLIPVisionModel, "
    "CLIPVisionModelWithProjection, CLIPForImageClassification, SiglipVisionModel, SiglipForImageClassification"
)
# All of them compute plain softmax attention; one registered by the user could compute anything.
_ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")


class HfBackbone(Backbone):
    """A vision model of transformers: a tower of blocks, alone or under a head.

    Args:
        model: The victim's network, in evaluation mode; read, never modified.

    Attributes:
        family: Base class of all models of the family, also of those that are refused.
        classes: Model classes that this adapter runs exactly.
        parts: Modules of a block that this adapter calls.

    Raises:
        VictimError: The model is not one that this adapter runs exactly.
    """

    family: ClassVar[type[nn.Module]]
    classes: ClassVar[tuple[type[nn.Module], ...]]
    parts: ClassVar[tuple[str, ...]]

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = cast(Any, model)
        if type(model) not in self.classes:
            raise self._refusal("this class has another head or output than those that are run")
        try:
            self.tower: Any = self._tower()
            self.layers: list[Any] = list(self._layers())
            for layer in self.layers:
                for part in self.parts:
                    layer.get_submodule(part)
        except AttributeError as error:
            raise self._refusal(f"transformers {version('transformers')} builds it differently ({error})") from error
        config: Any = self.tower.config
        if config._attn_implementation not in _ATTENTION:
            raise self._refusal(f"attention implementation {config._attn_implementation!r} is not supported")
        self.depth, self.width = len(self.layers), int(config.hidden_size)
        self.image_size, self.dtype = _pair(config.image_size), dtype_of_weights(model)
        patch = _pair(config.patch_size)
        self.grid = (self.image_size[0] // patch[0], self.image_size[1] // patch[1])
        self.prefix, self.class_token, self.pools_patches = 1, True, False

    @classmethod
    def accepts(cls, model: nn.Module) -> bool:
        """Whether ``model`` is of this family; one with exotic parts is still refused, with the reason."""
        return isinstance(model, cls.family)

    def _refusal(self, reason: str) -> VictimError:
        """Names the model and why it cannot be run."""
        return VictimError(
            f"unsupported victim {type(self.model).__name__}: {reason}", where="victim", hint=f"supported: {SUPPORTED}"
        )

    @abstractmethod
    def _tower(self) -> nn.Module:
        """Returns the model without its head."""

    def _layers(self) -> nn.ModuleList:
        """Returns the blocks."""
        blocks: nn.ModuleList = self.tower.encoder.layers
        return blocks

    def blocks(self) -> Sequence[nn.Module]:
        """Returns the model's own blocks."""
        return self.layers

    def _embedding(self, pixels: Tensor) -> Tensor:
        """Returns what enters the first block, (B, prefix + N, D), for normalised images (B, 3, H, W)."""
        tokens: Tensor = self.tower.embeddings(pixels)
        return tokens

    def embed(self, images: Tensor) -> TokenBatch:
        """Embeds normalised images (B, 3, H, W) into unreduced tokens.

        Raises:
            VictimError: The images are not of the size in the model's config.
        """
        height, width = self.image_size
        if images.shape[2:] != self.image_size:
            raise VictimError(
                f"images of {images.shape[3]} x {images.shape[2]} px, but the victim is configured for "
                f"{width} x {height}",
                where="victim",
                hint="resize the images, or build the model with another `image_size`",
            )
        return TokenBatch.from_uniform(self._embedding(images.to(self.tower.dtype)), self.prefix)

    @staticmethod
    def _heads(attention: Any, normed: Tensor) -> Projected:
        """Projects normed tokens (T, D) with the linears of an attention module."""
        shape = (len(normed), -1, attention.head_dim)
        query, key, value = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
        return Projected(query.view(shape), key.view(shape), value.view(shape))


def first_tokens(batch: TokenBatch) -> Tensor:
    """Returns the first token of each image, its class token: (B, D)."""
    return batch.tokens[batch.offsets[:-1]]


def _pair(size: Any) -> tuple[int, int]:
    """Reads a size that configs give as one number or as height and width."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)
