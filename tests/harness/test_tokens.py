import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leakgauge.harness.errors import PayloadError
from leakgauge.harness.values.tokens import DROPPED, TokenBatch, packed_rows


def packed(tokens, lengths, sizes, merge_map, *, prefix):
    """Packs padded tokens (B, L, D) and sizes (B, L), of which the first ``lengths`` of each image are real."""
    keep = torch.arange(tokens.shape[1]) < lengths[:, None]
    return TokenBatch(tokens[keep], lengths, sizes[keep], merge_map, prefix)


def random_batch(seed: int, images: int = 4, patches: int = 9, prefix: int = 1, width: int = 3) -> TokenBatch:
    """A batch in which every image keeps a random number of tokens and drops some patches."""
    generator = torch.Generator().manual_seed(seed)
    maps, sizes, lengths = [], [], []
    for _ in range(images):
        kept = int(torch.randint(1, patches + 1, (1,), generator=generator))
        assigned = torch.cat([torch.arange(kept), torch.randint(-1, kept, (patches - kept,), generator=generator)])
        assigned = assigned[torch.randperm(patches, generator=generator)]
        maps.append(torch.where(assigned < 0, DROPPED, assigned + prefix))
        counts = torch.bincount(assigned[assigned >= 0], minlength=kept)
        sizes.append(torch.cat([torch.ones(prefix, dtype=torch.long), counts]))
        lengths.append(kept + prefix)
    lengths_ = torch.tensor(lengths)
    tokens = torch.randn(int(lengths_.sum()), width, generator=generator)
    return TokenBatch(tokens, lengths_, torch.cat(sizes), torch.stack(maps), prefix)


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_random_batches_keep_the_invariants_and_survive_padding(seed):
    batch = random_batch(seed)
    batch.check()
    tokens, mask = batch.padded()
    assert torch.equal(mask.sum(dim=1), batch.lengths)
    assert bool((tokens[~mask] == 0).all())
    sizes = torch.zeros(mask.shape, dtype=torch.long)
    sizes[mask] = batch.sizes
    again = packed(tokens, batch.lengths, sizes, batch.merge_map, prefix=batch.prefix)
    assert torch.equal(again.tokens, batch.tokens)
    assert torch.equal(again.sizes, batch.sizes)


@given(st.integers(0, 10_000), st.permutations(range(4)))
@settings(max_examples=50, deadline=None)
def test_select_is_a_permutation_of_whole_images(seed, order):
    batch = random_batch(seed)
    chosen = batch.select(order)
    chosen.check()
    for place, image in enumerate(order):
        assert torch.equal(chosen.select([place]).tokens, batch.select([image]).tokens)
    assert torch.equal(TokenBatch.concatenate([batch.select([i]) for i in order]).tokens, chosen.tokens)


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_unmerge_copies_each_token_to_its_patches(seed):
    batch = random_batch(seed)
    patches = batch.unmerge()
    for image in range(len(batch)):
        own = batch.select([image])
        for patch, token in enumerate(batch.merge_map[image].tolist()):
            expected = own.tokens[token] if token != DROPPED else torch.zeros(3)
            assert torch.equal(patches[image, patch], expected)


def test_uniform_tokens_unmerge_to_themselves():
    tokens = torch.randn(2, 1 + 6, 4)
    batch = TokenBatch.from_uniform(tokens, prefix=1)
    batch.check()
    assert torch.equal(batch.unmerge(), tokens[:, 1:])


def test_packed_rows_of_nothing_is_empty():
    assert packed_rows(torch.tensor([3, 2]), torch.tensor([], dtype=torch.long)).numel() == 0


@pytest.mark.parametrize("damage", ["nan", "size", "map", "length"])
def test_check_names_what_is_broken(damage):
    batch = random_batch(7)
    tokens, sizes, maps, lengths = (x.clone() for x in (batch.tokens, batch.sizes, batch.merge_map, batch.lengths))
    if damage == "nan":
        tokens[0, 0] = float("nan")
    elif damage == "size":
        sizes[1] += 1
    elif damage == "map":
        maps[0, 0] = 99
    else:
        lengths[0] += 1
    with pytest.raises(PayloadError):
        TokenBatch(tokens, lengths, sizes, maps, 1).check()
