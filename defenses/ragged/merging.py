"""Applies an Assignment to packed tokens: size-weighted means, sizes and merge map."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from leakgauge.harness.contracts.reduction import Assignment
from leakgauge.harness.errors import PluginError
from leakgauge.harness.values.tokens import DROPPED, TokenBatch, offsets_of


class _Moves(NamedTuple):
    """A checked assignment, by new row.

    ``order`` (K,) are the old rows that are kept, ``target`` (K,) ascending where each goes, and ``counts`` (T',) how
    many go to each new row.
    """

    order: Tensor
    target: Tensor
    counts: Tensor


def check_assignment(batch: TokenBatch, assignment: Assignment) -> _Moves:
    """Checks that a reduction kept its contract.

    Raises:
        PluginError: Protected tokens moved, a new token is empty, or a token left its image.
    """
    destination, lengths = assignment.destination, assignment.lengths
    if destination.shape != (len(batch.tokens),) or lengths.shape != batch.lengths.shape:
        raise PluginError("a reduction returned an assignment of the wrong shape", hint="see Assignment")
    starts = offsets_of(lengths)
    first, last = (torch.repeat_interleave(ends, batch.lengths) for ends in (starts[:-1], starts[1:]))
    inside = (destination >= first) & (destination < last)
    target, order = destination.sort(stable=True)
    if not bool(inside.all()):
        if not bool((inside | (destination == DROPPED)).all()):
            raise PluginError("a reduction moved a token to another image", hint="see Assignment")
        dropped = int((destination == DROPPED).sum())  # they sort first
        target, order = target[dropped:], order[dropped:]
    counts = torch.bincount(target, minlength=int(starts[-1]))
    if not bool(counts.all()):
        raise PluginError("a reduction left a new token without sources", hint="see Assignment")
    place = torch.arange(batch.prefix, device=destination.device)
    prefix_old = (batch.offsets[:-1, None] + place).flatten()
    prefix_new = (starts[:-1, None] + place).flatten()
    if not torch.equal(destination[prefix_old], prefix_new) or not bool((counts[prefix_new] == 1).all()):
        raise PluginError("a reduction touched a protected token", hint="leave the first `prefix` tokens alone")
    return _Moves(order, target, counts)


def apply_assignment(batch: TokenBatch, assignment: Assignment) -> TokenBatch:
    """Merges and drops tokens.

    Args:
        batch: Packed tokens before.
        assignment: Where each goes.

    Returns:
        New tokens, each the size-weighted mean of its sources unless the assignment says otherwise; sizes add up and
        the merge map follows. A token with one source and no weights of its own keeps its values bit by bit.
    """
    order, target, counts = check_assignment(batch, assignment)
    destination, lengths = assignment.destination, assignment.lengths
    own = batch.sizes.index_select(0, order)
    sizes = torch.zeros_like(counts).index_add_(0, target, own)
    if assignment.weights is None:
        weights = own.double() / sizes.index_select(0, target).double()
    else:
        weights = assignment.weights[order].double()
    weights = weights.to(batch.tokens.dtype)
    tokens = embedding_bag(order, batch.tokens, offsets_of(counts)[:-1], mode="sum", per_sample_weights=weights)
    if assignment.rescale:
        tokens = _rescaled(tokens, batch.tokens, order, target)
    mass = None
    if batch.mass is not None or assignment.mass is not None:
        brought = batch.masses if assignment.mass is None else batch.masses * assignment.mass
        mass = brought.new_zeros(len(counts)).index_add_(0, target, brought.index_select(0, order))
    return TokenBatch(tokens, lengths, sizes, _follow(batch, destination, lengths), batch.prefix, mass)


def _rescaled(new: Tensor, old: Tensor, order: Tensor, target: Tensor) -> Tensor:
    """Scales each merged token to the largest norm among its sources (ToFu, section 3.3); others stay as they are."""
    norms = old[order].norm(dim=1)
    highest = torch.zeros(len(new), dtype=norms.dtype, device=new.device)
    highest = highest.scatter_reduce(0, target, norms, "amax")
    merged = torch.bincount(target, minlength=len(new)) > 1
    length = new.norm(dim=1)
    # Sources that cancel leave no direction to scale.
    merged &= length > 0
    factor = highest / torch.where(merged, length, 1.0)
    return new * torch.where(merged, factor, 1.0)[:, None]


def _follow(batch: TokenBatch, destination: Tensor, lengths: Tensor) -> Tensor:
    """Returns the merge map after tokens went to ``destination``."""
    rows = batch.offsets[:-1, None] + batch.merge_map.clamp_min(0)
    moved = destination.index_select(0, rows.flatten()).view(rows.shape)
    gone = (batch.merge_map == DROPPED) | (moved == DROPPED)
    return torch.where(gone, DROPPED, moved - offsets_of(lengths)[:-1, None])
