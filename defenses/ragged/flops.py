"""FLOPs by token count: each part of a pipeline is counted once at each number of tokens, then only added up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from leakgauge.defenses.backbones.backbone import Backbone
from leakgauge.defenses.ragged.attention import attention_half, mlp_half
from leakgauge.defenses.ragged.forward import embed, layer_state
from leakgauge.defenses.reductions.none import NoReduction
from leakgauge.defenses.reductions.similarity_merge import SimilarityMerge
from leakgauge.harness.contracts.link import Encoded, Transmission
from leakgauge.harness.contracts.reduction import Reduction
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.suite.registry import written_out
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

_NONE = torch.empty(1, 0, dtype=torch.long)


def _counted(run: Callable[[], Any]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


class Reducing(NamedTuple):
    """What decides the operations of an edge block beside its token counts.

    ``method`` names the reduction with the options that change what is computed; ``cut`` are the edge blocks.
    """

    reduction: Reduction
    method: str
    cut: int
    proportional: bool


def counts_by_tokens(reduction: Reduction) -> bool:
    """Tells whether what a reduction computes depends on an image through its token counts alone."""
    return isinstance(reduction, SimilarityMerge | NoReduction) and reduction.match is None


def method_of(spec: str | dict[str, Any]) -> str:
    """Returns a reduction's name with the options that are words: numbers change results, but no operation."""
    stated = written_out(spec)
    words = {k: v for k, v in stated.items() if isinstance(v, str)} if isinstance(stated, dict) else {}
    return " ".join(f"{key}={words[key]}" for key in sorted(words))


class FlopTable:
    """Counts as ``torch.utils.flop_counter`` does, on made-up tokens of one image.

    Holds for reductions whose operations depend on the number of tokens alone. Pipelines of one victim may share it.

    Args:
        backbone: The model.
        victim: The victim, which normalises images.
        device: Where it is.
    """

    def __init__(self, backbone: Backbone, victim: Victim, device: torch.device) -> None:
        self._backbone, self._victim, self._device = backbone, victim, device
        self._known: dict[tuple[Any, ...], int] = {}

    def share(self, other: FlopTable) -> None:
        """Takes over what another table of the same victim has counted, and what it will."""
        self._known = other._known

    def edge(self, images: ImageSet, transmission: Transmission, reducing: Reducing) -> list[int]:
        """Returns the FLOPs of each image in embedding and edge blocks.

        Args:
            images: B images.
            transmission: What became of them.
            reducing: How edge blocks merge.
        """
        first = self.part(("embed",), lambda: embed(self._backbone, self._victim, images.select([0]), self._device))
        start = self._backbone.prefix + transmission.encoded.decoded.merge_map.shape[1]
        return [
            first
            + sum(self.edge_block(layer, *ends, reducing) for layer, ends in enumerate(pairwise([start, *counts])))
            for counts in transmission.encoded.tokens_per_layer.tolist()
        ]

    def encoding(
        self, transmission: Transmission, serialise: Callable[[TokenBatch, tuple[str, ...], Tensor], Encoded]
    ) -> list[int]:
        """Returns the FLOPs of each image in the codec.

        It may hold what was fitted to this very operating point, so that nothing of it is shared.

        Args:
            transmission: What became of B images.
            serialise: Writes the payloads of tokens on the CPU, given ids and token counts.
        """
        counts, known = transmission.encoded.tokens_per_layer[:, -1].tolist(), dict[int, int]()
        for count in dict.fromkeys(counts):
            # As the pipeline does it: outside the victim's number type.
            with torch.autocast("cpu", enabled=False):
                made_up = self.tokens(count).to("cpu")
                made_up = made_up.with_tokens(made_up.tokens.float())
                known[count] = _counted(partial(serialise, made_up, ("made-up",), _NONE))
        return [known[count] for count in counts]

    def server(self, transmission: Transmission, layers: Sequence[int], *, proportional: bool) -> list[int]:
        """Returns the FLOPs of each image in the blocks ``layers``, on the tokens that arrived."""
        sized = transmission.encoded.sizes_sent
        return [
            sum(self.server_block(layer, received, proportional, sized) for layer in layers)
            for received in transmission.received.lengths.tolist()
        ]

    def part(self, key: tuple[Any, ...], run: Callable[[], Any]) -> int:
        """Returns the FLOPs of ``run``, which is called only where ``key`` is new."""
        if key not in self._known:
            self._known[key] = _counted(run)
        return self._known[key]

    def edge_block(self, layer: int, before: int, after: int, reducing: Reducing) -> int:
        """Returns the FLOPs of an edge block that takes ``before`` tokens and leaves ``after``."""
        method = reducing.method if reducing.reduction.active(layer, reducing.cut) else ""
        key = ("reduce", layer, before, method, reducing.proportional)
        return self.part(key, lambda: self._reduce(layer, before, reducing)) + self._mlp(layer, after)

    def server_block(self, layer: int, tokens: int, proportional: bool, sized: bool) -> int:
        """Returns the FLOPs of a server block on ``tokens`` tokens, whose sizes arrived where ``sized``."""

        def attend() -> None:
            attention_half(self._backbone, layer, self.tokens(tokens, sized=sized), proportional=proportional)

        return self.part(("attend", layer, tokens, proportional, sized), attend) + self._mlp(layer, tokens)

    def finish(self, tokens: int) -> int:
        """Returns the FLOPs of norm, pooling and head."""
        return self.part(("finish", tokens), lambda: self._backbone.finish(self.tokens(tokens)))

    def tokens(self, count: int, *, sized: bool = True) -> TokenBatch:
        """Makes up one image of ``count`` tokens, on the last of which all patches lie that have none of their own."""
        rows, columns = self._backbone.grid
        patches, prefix, width = rows * columns, self._backbone.prefix, self._backbone.width
        values = torch.randn(count, width, generator=Streams(0, ("flops", str(count))).torch())
        place = torch.arange(prefix, prefix + patches).clamp_max(count - 1)
        sizes = torch.bincount(place, minlength=count) if sized else torch.ones(count, dtype=torch.long)
        batch = TokenBatch(values, torch.tensor([count]), sizes.clamp_min(1), place[None], prefix)
        return batch.with_tokens(batch.tokens.to(self._backbone.dtype)).to(self._device)

    def _mlp(self, layer: int, tokens: int) -> int:
        return self.part(("mlp", layer, tokens), lambda: mlp_half(self._backbone, layer, self.tokens(tokens)))

    def _reduce(self, layer: int, count: int, reducing: Reducing) -> None:
        """Runs the attention of an edge block and decides what merges; merging itself multiplies no matrices."""
        batch, reduction = self.tokens(count), reducing.reduction
        active = reduction.active(layer, reducing.cut)
        attended = attention_half(
            self._backbone,
            layer,
            batch,
            proportional=reducing.proportional,
            keys=active,
            features=reduction.needs if active else frozenset(),
        )
        if attended.keys is None:
            return
        state = layer_state(self._backbone, batch, attended, layer, reducing.cut, ("made-up",))
        with torch.autocast(self._device.type, enabled=False):
            reduction.assign(state, Streams(0))
