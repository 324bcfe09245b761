"""Looks at one image's tokens after every edge block, with the cost so far and the payload that they would make."""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode

from leakgauge.defenses.ragged.forward import AfterBlock
from leakgauge.harness.values.layer_view import LayerView
from leakgauge.harness.values.tokens import TokenBatch


def inspect_layers(
    run: Callable[[AfterBlock], object], payload_size: Callable[[TokenBatch, int], int]
) -> tuple[LayerView, ...]:
    """Runs the edge on one image and records every block.

    Args:
        run: Runs the edge blocks on one image, with a callback after each.
        payload_size: Bytes that an image's tokens make where the cut is after so many blocks.

    Returns:
        What was there after each block, with the merging as it is configured for the real cut: only the place at which
        the payload is written moves.
    """
    views: list[LayerView] = []
    counter = FlopCounterMode(display=False)

    def see(layer: int, batch: TokenBatch) -> None:
        # First of all, and it stays this block's figure: what follows costs no matrix product.
        flops = counter.get_total_flops()
        batch.check()
        batch = batch.to("cpu")
        (merge_map,) = batch.merge_map  # one image: operations of several could not be told apart
        size = payload_size(batch, layer + 1)
        views.append(LayerView(layer, batch.prefix, merge_map, batch.sizes, flops / 1e9, size))

    with counter:
        run(see)
    return tuple(views)
