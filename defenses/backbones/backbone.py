"""What every model family must offer so that the ragged forward can run its own modules on packed tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.tokens import TokenBatch


class Projected(NamedTuple):
    """Attention inputs of packed tokens: query, key, value (T, H, d), and an output gate (T, H * d) or None."""

    query: Tensor
    key: Tensor
    value: Tensor
    gate: Tensor | None = None


class Backbone(ABC):
    """A vision transformer seen as embed, then in each block project / output / mlp, then finish.

    Adapters call the model's own modules and never modify the model. Everything between ``project`` and ``output`` is
    shared by all families (``ragged.attention``), and so are the residual sums. Dropout and stochastic
    depth are left out: victims are in evaluation mode.

    Attributes:
        depth: Number of blocks.
        prefix: Protected tokens (class, distillation, registers) at the start of every image.
        width: Width of a token.
        grid: Patch rows and columns.
        image_size: Height and width in pixels of the images that it takes.
        dtype: Number type of its weights, which its tokens must have outside autocast.
        class_token: Whether the first token is a class token, whose attention ranks the patches.
        pools_patches: Whether the head pools patch tokens, so that it needs their sizes.
    """

    depth: int
    prefix: int
    width: int
    grid: tuple[int, int]
    image_size: tuple[int, int]
    dtype: torch.dtype
    class_token: bool
    pools_patches: bool

    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """Returns the model's own blocks, to listen to; they are never called."""

    @abstractmethod
    def embed(self, images: Tensor) -> TokenBatch:
        """Embeds normalised images (B, 3, H, W) into unreduced tokens."""

    @abstractmethod
    def project(self, layer: int, tokens: Tensor) -> Projected:
        """Returns the attention inputs of block ``layer`` for tokens (T, D)."""

    @abstractmethod
    def scale(self, layer: int) -> float:
        """Returns the factor on the attention logits of a block."""

    @abstractmethod
    def output(self, layer: int, context: Tensor, gate: Tensor | None) -> Tensor:
        """Projects attention results (T, H, d) to what the block adds to its tokens: (T, D)."""

    @abstractmethod
    def mlp(self, layer: int, tokens: Tensor) -> Tensor:
        """Returns what the MLP half of a block adds to its tokens (T, D)."""

    @abstractmethod
    def finish(self, batch: TokenBatch) -> Tensor:
        """Applies the final norm, pools and classifies: (B, classes). Pooling weighs each token by its size."""


def patch_rows(batch: TokenBatch) -> Tensor:
    """Returns (T,) True for patch tokens, False for protected ones."""
    position = torch.arange(len(batch.tokens), device=batch.tokens.device) - batch.offsets[batch.image_index]
    return position >= batch.prefix


def size_weighted_mean(batch: TokenBatch, *, with_prefix: bool) -> Tensor:
    """Averages the tokens of each image: (B, D).

    Every token counts as often as the patches that it stands for (assumed: no paper states it), so that merging alone
    moves the mean of the patches as little as possible. Summed in float32 whatever the type of the tokens.
    """
    weight = batch.sizes if with_prefix else batch.sizes * patch_rows(batch)
    weight, tokens = weight.float()[:, None], batch.tokens.float()
    sums = tokens.new_zeros(len(batch), tokens.shape[1]).index_add(0, batch.image_index, tokens * weight)
    total = tokens.new_zeros(len(batch), 1).index_add(0, batch.image_index, weight)
    return (sums / total.clamp_min(1)).to(batch.tokens.dtype)


def dtype_of_weights(model: nn.Module) -> torch.dtype:
    """Returns the number type that all weights of a model have.

    Raises:
        ConfigError: They are of several.
    """
    kinds = {tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()}
    if len(kinds) > 1:
        names = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        raise ConfigError(
            f"the weights of the victim are of several number types: {names}",
            where="victim",
            hint="turn all into one, `model.float()` say; option `precision` sets what the victim computes in",
        )
    return next(iter(kinds), torch.float32)
