"""Padding of the token count with copies of tokens."""

from __future__ import annotations

import heapq
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from leakgauge.harness.contracts.link import Perturbation
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import DROPPED, TokenBatch

Tokens = Annotated[int, Field(ge=1, le=2**20)]


class Padded(NamedTuple):
    """One image after padding: (L,) source row of each token, (L,) sizes, (N,) merge map."""

    rows: Tensor
    sizes: Tensor
    merge_map: Tensor


class PadCount(Perturbation):
    """Hides how many tokens an image has: splits tokens into copies that share their source patches.

    A token that stands for s patches becomes up to s copies of equal value, whose sizes are as equal as they can be
    and add up to s. With proportional attention and sizes sent, the server's result is the same: c copies of sizes
    s_1 + ... + s_c = s receive together the attention that one key of size s does, and pooling weighs by size. Where
    sizes are not sent, the copies weigh too much and the result changes. What the merge map says of which copy stands
    for which patch is arbitrary.

    The next copy is always made of the token with the most patches a copy, ties taking the first, so that the result
    depends on nothing random. An image never gets more patch tokens than it has patches: it is padded as far as its
    sizes allow, which is not as far as asked where patches were dropped, and its count then still tells of it.

    Copies stand behind all originals: the first copy of every token that has one, in the order of the originals, then
    the second ones, and so on; equal tokens are neighbours only where a single token is left to copy. An observer who
    knows this design sees where the order starts again: apply ``shuffle`` after it. An observer who sees exact values
    can count the distinct ones in any order; only what makes copies differ hides the count from him, noise added after
    the padding or a quantiser with dither.

    Args:
        count: Tokens that each image gets, protected ones included, 1 to 2**20; a longer image is refused.
        bucket: Pads to the next multiple of it instead, protected tokens included, 1 to 2**20. Give one of the two.
    """

    name = "pad_count"

    def __init__(self, count: Tokens | None = None, bucket: Tokens | None = None) -> None:
        if (count is None) == (bucket is None):
            raise ConfigError("pad_count takes either count or bucket", hint="write bucket: 16")
        self._count = count
        self._bucket = bucket or 1

    def apply(self, batch: TokenBatch, ids: tuple[str, ...], rng: Streams) -> TokenBatch:
        """Returns the tokens followed by copies.

        Raises:
            ConfigError: An image has more than ``count`` tokens.
        """
        longest = int(batch.lengths.max()) if len(batch) else 0
        if self._count is not None and longest > self._count:
            raise ConfigError(
                f"an image has {longest} tokens, more than count = {self._count}",
                where="perturbation 'pad_count'",
                hint=f"write count: {longest} or more, or use bucket",
            )
        images = [
            self._pad(sizes.cpu(), merge_map.cpu(), batch.prefix)
            for sizes, merge_map in zip(torch.split(batch.sizes, batch.lengths.tolist()), batch.merge_map, strict=True)
        ]
        if not images:
            return batch
        device = batch.tokens.device
        starts = batch.offsets[:-1].tolist()
        rows = torch.cat([start + image.rows for start, image in zip(starts, images, strict=True)]).to(device)
        return TokenBatch(
            batch.tokens[rows],
            torch.tensor([len(image.rows) for image in images], device=device),
            torch.cat([image.sizes for image in images]).to(device),
            torch.stack([image.merge_map for image in images]).to(device),
            batch.prefix,
        )

    def _pad(self, sizes: Tensor, merge_map: Tensor, prefix: int) -> Padded:
        """Pads one image of sizes (L,) and merge map (N,)."""
        length = len(sizes)
        goal = -(-length // self._bucket) * self._bucket if self._count is None else self._count
        pieces = split_counts(sizes[prefix:].tolist(), goal - length)
        # Copy number and original of every token after padding: sorting the pairs puts originals first.
        layout = sorted(
            [(0, row) for row in range(prefix)]
            + [(copy, prefix + token) for token, copies in enumerate(pieces) for copy in range(copies)]
        )
        new_sizes = torch.ones(len(layout), dtype=sizes.dtype)
        new_map = torch.full_like(merge_map, DROPPED)
        patches = [(merge_map == row).nonzero().squeeze(1) for row in range(length)]
        for place, (copy, row) in enumerate(layout):
            if row >= prefix:
                share = patches[row].tensor_split(pieces[row - prefix])[copy]
                new_sizes[place] = len(share)
                new_map[share] = place
        return Padded(torch.tensor([row for _, row in layout], dtype=torch.long), new_sizes, new_map)


def split_counts(sizes: list[int], more: int) -> list[int]:
    """Returns into how many pieces each token splits, ``more`` in all than there are tokens or as many as there can be.

    Args:
        sizes: Patches that each token stands for, at least 1.
        more: Pieces to add, at least 0.
    """
    pieces = [1] * len(sizes)
    # Equal fractions are equal as floating-point quotients too, so that ties are found.
    queue = [(-float(size), token) for token, size in enumerate(sizes) if size > 1]
    heapq.heapify(queue)
    for _ in range(more):
        if not queue:
            break
        _, token = heapq.heappop(queue)
        pieces[token] += 1
        if pieces[token] < sizes[token]:
            heapq.heappush(queue, (-sizes[token] / pieces[token], token))
    return pieces
