"""The ragged forward: runs blocks of a victim on packed tokens, with a reduction in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.profiler import record_function

from leakgauge.defenses.backbones.backbone import Backbone
from leakgauge.defenses.ragged.attention import Attended, attention_half, mlp_half
from leakgauge.defenses.ragged.merging import apply_assignment
from leakgauge.harness.contracts.reduction import LayerState, Reduction
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

EMBEDDED_IMAGES = 8
Precision = Literal["float32", "bfloat16", "float16"]
"""The number type in which a victim computes."""
AfterBlock = Callable[[int, TokenBatch], None]
MATCH, MERGE = "leakgauge.match", "leakgauge.merge"
"""Names of the spans that a profiler sees for deciding what to merge and for merging."""


def dtype_of(precision: Precision, device: torch.device) -> torch.dtype:
    """Returns the number type; raises ConfigError where it is of no use on the device."""
    if precision == "float16" and device.type == "cpu":
        raise ConfigError("float16 is for GPUs", where="precision", hint="take bfloat16 on the CPU")
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def embed(backbone: Backbone, victim: Victim, images: ImageSet, device: torch.device) -> TokenBatch:
    """Embeds images, a few at a time: the pixels of all would leave the cache of a CPU."""
    size = EMBEDDED_IMAGES if device.type == "cpu" else len(images)
    parts = (part.images().to(device) for part in images.batches(size))
    return TokenBatch.concatenate([backbone.embed(victim.normalise(part)) for part in parts])


def run_edge(
    backbone: Backbone,
    batch: TokenBatch,
    ids: tuple[str, ...],
    reduction: Reduction,
    rng: Streams,
    *,
    cut: int,
    proportional: bool,
    targets: Tensor | None = None,
    after_block: AfterBlock | None = None,
) -> tuple[TokenBatch, Tensor]:
    """Runs the first ``cut`` blocks with a reduction between attention and MLP of each; gradients flow through it.

    Args:
        backbone: The model.
        batch: The embedded images.
        ids: B image identifiers, for random reductions.
        reduction: What merges or drops tokens.
        rng: Random streams of the reduction.
        cut: Blocks to run.
        proportional: Proportional attention.
        targets: (B, cut) token counts that a matched control must reach, or None.
        after_block: Called with each block's number and the tokens after it, which the next block may write over.

    Returns:
        The tokens after the last block and the (B, cut) token counts after each.
    """
    counts, in_place = [], not torch.is_grad_enabled()
    if in_place:
        batch = batch.with_tokens(batch.tokens.clone())
    for layer in range(cut):
        active = reduction.active(layer, cut)
        attended = attention_half(
            backbone,
            layer,
            batch,
            proportional=proportional,
            keys=active,
            features=reduction.needs if active else frozenset(),
            in_place=in_place,
        )
        batch = batch.with_tokens(attended.tokens)
        if attended.keys is not None:
            wanted = None if targets is None else targets[:, layer]
            state = layer_state(backbone, batch, attended, layer, cut, ids, wanted)
            batch = reduce_tokens(batch, state, reduction, rng)
        batch = mlp_half(backbone, layer, batch, in_place=in_place)
        counts.append(batch.lengths)
        if after_block is not None:
            after_block(layer, batch)
    return batch, torch.stack(counts, dim=1)


def layer_state(
    backbone: Backbone,
    batch: TokenBatch,
    attended: Attended,
    layer: int,
    cut: int,
    ids: tuple[str, ...],
    target_lengths: Tensor | None = None,
) -> LayerState:
    """Returns what a reduction sees of block ``layer`` after its attention, which must have returned keys.

    Args:
        backbone: The model.
        batch: The tokens, B images.
        attended: What the attention half of the block made of them.
        layer: The block.
        cut: Edge blocks.
        ids: B image identifiers.
        target_lengths: (B,) token counts that a matched control must reach, or None.
    """
    assert attended.keys is not None
    return LayerState(
        keys=attended.keys,
        sizes=batch.sizes,
        attention=attended.attention,
        lengths=batch.lengths,
        prefix=batch.prefix,
        layer=layer,
        ids=ids,
        target_lengths=target_lengths,
        tokens=attended.tokens,
        significance=attended.significance,
        value_norm=attended.value_norm,
        layers=cut,
        depth=backbone.depth,
    )


def reduce_tokens(batch: TokenBatch, state: LayerState, reduction: Reduction, rng: Streams) -> TokenBatch:
    """Asks the reduction and applies its assignment.

    Decisions are made without gradient, and in float32 also where autocast is on: in bfloat16 they would differ.
    """
    with record_function(MATCH), torch.no_grad(), torch.autocast(batch.tokens.device.type, enabled=False):
        assignment = reduction.assign(state, rng)
    if assignment is None:
        return batch
    with record_function(MERGE):
        return apply_assignment(batch, assignment)


def run_server(backbone: Backbone, batch: TokenBatch, layers: Sequence[int], *, proportional: bool) -> Tensor:
    """Runs the blocks ``layers`` without reduction, and the head: (B, classes)."""
    in_place = not torch.is_grad_enabled()
    if in_place:
        batch = batch.with_tokens(batch.tokens.clone())
    for layer in layers:
        attended = attention_half(backbone, layer, batch, proportional=proportional, in_place=in_place)
        batch = mlp_half(backbone, layer, batch.with_tokens(attended.tokens), in_place=in_place)
    return backbone.finish(batch)
