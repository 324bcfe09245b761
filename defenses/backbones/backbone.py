"""What every model family must offer so that the ragged forward can run its own modules on packed tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from harness.tokens import TokenBatch


class Projected(NamedTuple):
    """Attention inputs of packed tokens: query, key, value (T, H, d), and an output gate (T, H * d) or None."""

    query: Tensor
    key: Tensor
    value: Tensor
    gate: Tensor | None = None


class Backbone(ABC):
    """A vision transformer seen as embed, then in each block project / output / mlp, then finish.

    Adapters call the model's own modules and never modify the model. Everything between ``project`` and ``output`` is
    shared by all families (``defenses.attention``), and so are the residual sums. Dropout and stochastic depth are left
    out: victims are in evaluation mode.

    Attributes:
        depth: Number of blocks.
        prefix: Protected tokens (class, distillation, registers) at the start of every image.
        width: Width of a token.
        grid: Patch rows and columns.
        class_token: Whether the first token is a class token, whose attention ranks the patches.
        pools_patches: Whether the head pools patch tokens, so that it needs their sizes.
    """

    depth: int
    prefix: int
    width: int
    grid: tuple[int, int]
    class_token: bool
    pools_patches: bool

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
    moves the mean of the patches as little as possible.
    """
    weight = batch.sizes if with_prefix else batch.sizes * patch_rows(batch)
    weight = weight.to(batch.tokens.dtype)[:, None]
    sums = batch.tokens.new_zeros(len(batch), batch.tokens.shape[1]).index_add(
        0, batch.image_index, batch.tokens * weight
    )
    total = batch.tokens.new_zeros(len(batch), 1).index_add(0, batch.image_index, weight)
    return sums / total.clamp_min(1)
