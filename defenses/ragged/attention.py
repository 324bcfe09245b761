"""Attention over packed tokens of images with different lengths, without padding.

No image is ever padded to its batch mates, so that its result cannot depend on them, not even through a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, scaled_dot_product_attention

from leakgauge.defenses.backbones.backbone import Backbone, Projected
from leakgauge.harness.contracts.reduction import Feature
from leakgauge.harness.values.tokens import TokenBatch, offsets_of, packed_rows

CPU = "cpu"
CPU_BYTES = 12 * 2**20
"""Bytes of the widest intermediate result, four values a channel of float32, that a CPU computes at once. Larger ones
are mapped anew by the allocator at every call, which costs more than smaller matrix products do."""


class Attended(NamedTuple):
    """Result of the attention half of a block: tokens (T, D) after the residual, and what ranks them for reductions.

    ``keys`` (T, d) float32 unit-norm, mean over heads; ``attention``, ``significance`` and ``value_norm`` (T,) as in
    LayerState.
    """

    tokens: Tensor
    keys: Tensor | None
    attention: Tensor | None
    significance: Tensor | None
    value_norm: Tensor | None


def group_rows(tokens: Tensor) -> int | None:
    """Returns how many rows of tokens (T, D) their device should process at once; None for all."""
    return max(1, CPU_BYTES // (16 * tokens.shape[1])) if tokens.device.type == CPU else None


def image_groups(lengths: Tensor, rows: int | None) -> list[tuple[slice, slice]]:
    """Divides images into runs of at most ``rows`` rows, at least one image each: slices of images and of rows."""
    if rows is None or int(lengths.sum()) <= rows:
        return [(slice(0, len(lengths)), slice(0, int(lengths.sum())))]
    groups, image, start, end = [], 0, 0, 0
    for i, length in enumerate(lengths.tolist()):
        if i > image and end + length - start > rows:
            groups.append((slice(image, i), slice(start, end)))
            image, start = i, end
        end += length
    return [*groups, (slice(image, len(lengths)), slice(start, end))]


class ResidualStream:
    """Tokens to which a half of a block adds, some rows at a time.

    Args:
        tokens: (T, D).
        in_place: Add into ``tokens`` themselves, which saves putting the parts together; not for gradients.
    """

    def __init__(self, tokens: Tensor, *, in_place: bool) -> None:
        self._tokens, self._in_place = tokens, in_place
        self._parts: list[Tensor] = []

    def add(self, rows: slice, update: Tensor) -> None:
        """Adds to the next rows."""
        # Under autocast an update may be of fewer bits than the tokens, never of more.
        if self._in_place and torch.promote_types(update.dtype, self._tokens.dtype) == self._tokens.dtype:
            self._tokens[rows] += update
        else:
            self._parts.append(self._tokens[rows] + update)

    def result(self) -> Tensor:
        """Returns the tokens after all parts were added."""
        if not self._parts:
            return self._tokens
        return self._parts[0] if len(self._parts) == 1 else torch.cat(self._parts)


def mlp_half(backbone: Backbone, layer: int, batch: TokenBatch, *, in_place: bool = False) -> TokenBatch:
    """Runs the MLP half of a block, in even runs of rows; ``in_place`` as in ResidualStream."""
    rows = group_rows(batch.tokens)
    # Even runs, because a remainder of a few rows would be computed by another kernel, with other last bits.
    runs = 1 if rows is None else max(1, -(-len(batch.tokens) // rows))
    stream, start = ResidualStream(batch.tokens, in_place=in_place), 0
    for part in batch.tokens.tensor_split(runs):
        stream.add(slice(start, start + len(part)), backbone.mlp(layer, part))
        start += len(part)
    return batch.with_tokens(stream.result())


def equal_lengths(lengths: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yields every distinct length with the packed rows (images, length) of the images that have it."""
    for length in torch.unique(lengths).tolist():
        images = (lengths == length).nonzero().squeeze(1)
        yield int(length), packed_rows(lengths, images).view(len(images), int(length))


def segment_attention(inputs: Projected, lengths: Tensor, log_sizes: Tensor | None, scale: float) -> Tensor:
    """Attends within each image.

    On the CPU every image is one call on a view of its rows, which measured fastest. On a GPU, where many small
    kernels are slow, images of equal length share a call.

    Args:
        inputs: Query, key and value (T, H, d).
        lengths: (B,) tokens an image.
        log_sizes: (T,) added to the attention logits of each key (proportional attention, ToMe, eq. 1), or None.
        scale: Factor on the logits.

    Returns:
        (T, H, d) attention results.
    """
    counts: list[int] = lengths.tolist()
    if len(set(counts)) == 1:
        return _attend_equal(inputs, len(counts), log_sizes, scale)
    if inputs.query.device.type == CPU:
        q, k, v = (torch.split(x.transpose(0, 1)[None], counts, dim=2) for x in inputs[:3])
        biases: Sequence[Tensor | None] = [None] * len(counts)
        if log_sizes is not None:
            biases = torch.split(log_sizes.view(1, 1, 1, -1), counts, dim=3)
        attended = [
            scaled_dot_product_attention(one, key, value, attn_mask=bias, scale=scale).transpose(1, 2)
            for one, key, value, bias in zip(q, k, v, biases, strict=True)
        ]
        return torch.cat(attended, dim=1)[0]
    parts, order = [], []
    for _, rows in equal_lengths(lengths):
        flat = rows.flatten()
        own = Projected(inputs.query[flat], inputs.key[flat], inputs.value[flat])
        parts.append(_attend_equal(own, len(rows), None if log_sizes is None else log_sizes[flat], scale))
        order.append(flat)
    return torch.cat(parts)[torch.argsort(torch.cat(order))]


def _attend_equal(inputs: Projected, images: int, log_sizes: Tensor | None, scale: float) -> Tensor:
    """Attends within ``images`` images of one length."""
    q, k, v = (x.view(images, -1, *x.shape[1:]).transpose(1, 2) for x in inputs[:3])
    bias = None if log_sizes is None else log_sizes.view(images, 1, 1, -1)
    return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale).transpose(1, 2).flatten(0, 1)


def attention_half(
    backbone: Backbone,
    layer: int,
    batch: TokenBatch,
    *,
    proportional: bool,
    keys: bool = False,
    features: frozenset[Feature] = frozenset(),
    in_place: bool = False,
) -> Attended:
    """Runs the attention half of a block.

    Args:
        backbone: The model.
        layer: Block number, from 0.
        batch: Packed tokens.
        proportional: Weigh each key by its size, adding log(size) to the attention logits (ToMe, section 3.2); by its
            mass, where a reduction gave it one.
        keys: Whether a reduction will read the keys.
        features: Which other features it will read.
        in_place: As in ResidualStream.
    """
    log_sizes = None
    if proportional and bool((batch.masses != 1).any()):
        log_sizes = batch.masses.to(batch.tokens.dtype).log()
    stream, ranked = ResidualStream(batch.tokens, in_place=in_place), []
    for images, rows in image_groups(batch.lengths, group_rows(batch.tokens)):
        own = None if log_sizes is None else log_sizes[rows]
        part = _attend_group(backbone, layer, batch.tokens[rows], batch.lengths[images], own, keys, features)
        stream.add(rows, part.update)
        ranked.append(part[1:])
    return Attended(stream.result(), *map(_joined, zip(*ranked, strict=True)))


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Joins what consecutive groups of images have of one feature."""
    present = [part for part in parts if part is not None]
    return torch.cat(present) if len(present) > 1 else present[0] if present else None


class _Group(NamedTuple):
    """What the attention half of a block makes of some images: what it adds to their tokens, and features."""

    update: Tensor
    keys: Tensor | None
    attention: Tensor | None
    significance: Tensor | None
    value_norm: Tensor | None


def _attend_group(
    backbone: Backbone,
    layer: int,
    tokens: Tensor,
    lengths: Tensor,
    log_sizes: Tensor | None,
    keys: bool,
    features: frozenset[Feature],
) -> _Group:
    """Runs the attention half of a block on some images: ``tokens`` (T, D), ``lengths`` (B,), ``log_sizes`` (T,)."""
    inputs = backbone.project(layer, tokens)
    scale = backbone.scale(layer)
    bias = None if log_sizes is None else log_sizes.to(inputs.query.dtype)
    update = backbone.output(layer, segment_attention(inputs, lengths, bias, scale), inputs.gate)
    attention = significance = value_norm = None
    if "value_norm" in features:
        value_norm = inputs.value.detach().float().flatten(1).norm(dim=1)
    if features - {"value_norm"}:
        per_head = received_attention(inputs, lengths, bias, scale, class_token=backbone.class_token)
        attention = per_head.mean(dim=1)
        if "significance" in features:
            significance = (per_head * inputs.value.float().norm(dim=-1)).sum(dim=1)
    return _Group(update, unit_keys(inputs.key) if keys else None, attention, significance, value_norm)


def unit_keys(key: Tensor) -> Tensor:
    """Returns the unit-norm mean over heads (T, d) of keys (T, H, d), in float32 whatever the model's type."""
    return normalize(key.detach().float().sum(dim=1), dim=-1)  # the norm takes out the number of heads


def received_attention(
    inputs: Projected, lengths: Tensor, log_sizes: Tensor | None, scale: float, *, class_token: bool
) -> Tensor:
    """Returns the attention (T, H) float32 that each token receives from its image's class token.

    Without a class token, the mean over all tokens of the image (assumed).
    """
    offsets = offsets_of(lengths).tolist()
    rows = []
    # Rankings decide what is kept: float32, also where autocast is on.
    with torch.no_grad(), torch.autocast(inputs.query.device.type, enabled=False):
        for start, end in pairwise(offsets):
            query = inputs.query[start : start + 1 if class_token else end].float()
            logits = torch.einsum("qhd,khd->hqk", query, inputs.key[start:end].float()) * scale
            if log_sizes is not None:
                logits = logits + log_sizes[start:end].float()
            rows.append(logits.softmax(dim=-1).mean(dim=1).transpose(0, 1))
    return torch.cat(rows)
