"""Tokens, and the states of a block, on which the tests of reductions run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import normalize

from leakgauge.defenses.backbones.timm_vit import TimmViT
from leakgauge.defenses.ragged.attention import attention_half, mlp_half
from leakgauge.defenses.ragged.merging import apply_assignment
from leakgauge.harness.contracts.reduction import Assignment, LayerState, Reduction
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import DROPPED, TokenBatch, packed_rows

RNG = Streams(0)
X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Case:
    """Packed tokens, and what a reduction sees of them."""

    batch: TokenBatch
    state: LayerState

    def reduced(self, reduction: Reduction) -> TokenBatch:
        assignment = reduction.assign(self.state, RNG)
        return self.batch if assignment is None else apply_assignment(self.batch, assignment)

    def select(self, images: list[int]) -> Case:
        """Returns the case of some images, as if they had been computed alone and in that order."""
        state, index = self.state, torch.tensor(images)
        rows = packed_rows(state.lengths, index)
        own = {
            name: None if getattr(state, name) is None else getattr(state, name)[rows].clone()
            for name in ("keys", "sizes", "attention", "tokens", "significance", "value_norm")
        }
        targets = None if state.target_lengths is None else state.target_lengths[index]
        ids = tuple(state.ids[i] for i in images)
        return Case(
            self.batch.select(images),
            replace(state, **own, lengths=state.lengths[index], ids=ids, target_lengths=targets),
        )

    def with_(self, **changes) -> Case:
        return Case(self.batch, replace(self.state, **changes))


def case_of(batch: TokenBatch, keys: torch.Tensor, attention=None, significance=None, **more) -> Case:
    """Returns a case with given keys (T, K), class attention (T,) and significance (T,), uniform where not given."""
    flat = torch.ones(len(batch.tokens))
    ids = tuple(f"image{i}" for i in range(len(batch)))
    values = {"layer": 0, "layers": 6, "depth": 6, **more}
    state = LayerState(
        keys=normalize(keys, dim=-1),
        sizes=batch.sizes,
        attention=flat / 100 if attention is None else attention,
        lengths=batch.lengths,
        prefix=batch.prefix,
        ids=ids,
        tokens=batch.tokens,
        significance=flat if significance is None else significance,
        **values,
    )
    return Case(batch, state)


def random_case(seed: int, images: int, patches: int, prefix: int = 1, **more) -> Case:
    """Returns random tokens with keys of few directions, many of them similar, and few tokens that matter.

    Images have different lengths, sizes above one and dropped patches where ``patches`` allows it; keys and attentions
    tie now and then.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(images, prefix + patches, 8, generator=generator)
    batch = TokenBatch.from_uniform(tokens, prefix)
    palette = torch.randn(3, 4, generator=generator)
    pick = torch.randint(3, (len(batch.tokens),), generator=generator)
    noise = 0.3 * torch.randn(len(batch.tokens), 4, generator=generator)
    noise[torch.rand(len(noise), generator=generator) < 0.3] = 0.0
    attention = torch.rand(len(batch.tokens), generator=generator).pow(4)
    attention[torch.rand(len(noise), generator=generator) < 0.3] = 0.125
    attention /= attention.view(images, -1).sum(dim=1).repeat_interleave(prefix + patches)
    case = case_of(batch, palette[pick] + noise, attention, attention * batch.tokens.norm(dim=1), **more)
    return earlier_merges(case, generator)


def earlier_merges(case: Case, generator: torch.Generator) -> Case:
    """Returns the case after an earlier block merged a token of image 1 and dropped one of image 2."""
    batch, prefix = case.batch, case.batch.prefix
    patches = int(batch.lengths[0]) - prefix
    if patches < 3 or len(batch) < 2:
        return case
    start = int(batch.offsets[1])
    gone = start + prefix + int(torch.randint(patches - 1, (1,), generator=generator))
    keep = torch.ones(len(batch.tokens), dtype=torch.bool)
    keep[gone] = False
    lost = None
    if len(batch) > 2:
        lost = int(batch.offsets[2]) + prefix
        keep[lost] = False
    new_row = keep.long().cumsum(0) - 1
    destination = new_row.clone()
    destination[gone] = new_row[gone + 1]
    lengths = batch.lengths.clone()
    lengths[1] -= 1
    if lost is not None:
        destination[lost] = DROPPED
        lengths[2] -= 1
    after = apply_assignment(batch, Assignment(destination, lengths))
    state = case.state
    rows = {name: getattr(state, name)[keep] for name in ("keys", "attention", "significance")}
    return Case(after, replace(state, **rows, sizes=after.sizes, lengths=after.lengths, tokens=after.tokens))


def real_case(victim, images, layer: int = 3) -> Case:
    """Returns the tokens of photographs in a block of the victim."""
    backbone = TimmViT(victim.model)
    features = frozenset({"attention", "significance"})
    with torch.no_grad():
        batch = backbone.embed(victim.normalise(images.images()))
        for block in range(layer + 1):
            attended = attention_half(backbone, block, batch, proportional=True, keys=True, features=features)
            batch = batch.with_tokens(attended.tokens)
            if block < layer:
                batch = mlp_half(backbone, block, batch)
    state = LayerState(
        keys=attended.keys,
        sizes=batch.sizes,
        attention=attended.attention,
        lengths=batch.lengths,
        prefix=batch.prefix,
        layer=layer,
        ids=images.ids,
        tokens=attended.tokens,
        significance=attended.significance,
        layers=backbone.depth,
        depth=backbone.depth,
    )
    return Case(batch, state)


def one_image(values, keys=None, attention=None, significance=None, **more) -> Case:
    """Returns one image: the class token 9 with key Z, then patches of one value each."""
    batch = TokenBatch.from_uniform(torch.tensor([[9.0], *([float(v)] for v in values)])[None], prefix=1)
    keys = torch.tensor([Z, *([X] * len(values) if keys is None else keys)])
    flat = [
        None if row is None else torch.tensor([0.05, *row], dtype=torch.float32) for row in (attention, significance)
    ]
    return case_of(batch, keys, *flat, **more)


def values_of(batch: TokenBatch) -> list[float]:
    return batch.tokens.flatten().tolist()


def dot(a, b) -> float:
    # Rounded as the similarities are, so that the loops below see the same ties.
    return float(torch.tensor(math.fsum(x * y for x, y in zip(a, b, strict=True)), dtype=torch.float32))


def first_best(scores: list[float]) -> int:
    return scores.index(max(scores))
