"""Reductions against numbers that their published code gave: made-up tokens always, photographs where files are.

``published_reductions.json`` names repositories and commits. The code ran elsewhere; no line of it is here.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from token_states import RNG, case_of

from leakgauge.benchmarks.victims.loading.timm_model import load_timm_model
from leakgauge.defenses.backbones.timm_vit import TimmViT
from leakgauge.defenses.ragged.forward import run_edge
from leakgauge.defenses.reductions.ats import AdaptiveTokenSampling, sampled
from leakgauge.defenses.reductions.diffrate import DiffRate
from leakgauge.defenses.reductions.pitome import PiToMe
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.tokens import DROPPED, TokenBatch

PUBLISHED = json.loads(Path(__file__).with_name("published_reductions.json").read_text(encoding="utf-8"))
MADE_UP, PHOTOGRAPHS = PUBLISHED["made_up"], PUBLISHED["photographs"]
PATCHES = 40


def keys_of(dice) -> torch.Tensor:
    """Tokens (41, 8) around five directions, as the published code got them."""
    palette, pick = dice.standard_normal((5, 8)), dice.randint(5, size=PATCHES + 1)
    return torch.tensor(palette[pick] + 0.4 * dice.standard_normal((PATCHES + 1, 8)), dtype=torch.float32)


def attention_of(dice, count: int) -> torch.Tensor:
    """Attention of the class token (2 heads, count), as the published code got it."""
    weight = dice.uniform(size=(2, count)) ** 4
    return torch.tensor(weight / weight.sum(1, keepdims=True), dtype=torch.float32)


def dice_of(seed: int):
    return np.random.RandomState(seed)  # the one stream that numpy promises never to change


def labels(merge_map: torch.Tensor) -> list[int]:
    """Names every patch by the first patch of its token."""
    first: dict[int, int] = {}
    return [t if t == DROPPED else first.setdefault(t, patch) for patch, t in enumerate(merge_map.tolist())]


@pytest.mark.parametrize("case", MADE_UP["pitome"]["cases"], ids=lambda c: f"seed{c['seed']}-block{c['layer']}")
def test_pitome_merges_what_the_published_code_merges(case):
    keys = keys_of(dice_of(case["seed"]))
    depth = MADE_UP["pitome"]["depth"]
    made = case_of(TokenBatch.from_uniform(keys[None], 1), keys, layer=case["layer"], layers=depth, depth=depth)
    after = made.reduced(PiToMe(MADE_UP["pitome"]["ratio"]))
    assert labels(after.merge_map[0]) == case["clusters"]
    # The size-weighted mean: sums stay.
    assert torch.allclose((after.tokens * after.sizes[:, None]).sum(0), keys.sum(0), atol=1e-4)


@pytest.mark.parametrize("case", MADE_UP["diffrate"]["cases"], ids=lambda c: f"seed{c['seed']}")
def test_diffrate_merges_weighs_and_averages_as_the_published_code(case):
    dice = dice_of(case["seed"])
    batch = TokenBatch.from_uniform(keys_of(dice_of(case["seed"]))[None], 1)
    first = list(range(PATCHES + 1))  # of each token, counted with the class token
    for layer in range(2):
        attention = attention_of(dice, len(first)).mean(dim=0)
        in_patch_order = sorted(first)
        own = attention[[in_patch_order.index(f) for f in first]]
        # Keys that would merge otherwise: tokens are what is compared.
        keys = torch.randn(len(first), 8, generator=torch.Generator().manual_seed(1))
        made = case_of(batch, keys, own, layer=layer, layers=2)
        batch = made.reduced(DiffRate(MADE_UP["diffrate"]["prune_kept"], MADE_UP["diffrate"]["merge_kept"]))
        tokens = batch.merge_map[0].tolist()
        first = [0, *(1 + tokens.index(t) for t in range(1, len(batch.tokens)))]
    order = sorted(range(len(first)), key=lambda row: first[row])
    assert labels(batch.merge_map[0]) == case["clusters"]
    assert batch.mass is not None
    assert batch.mass[order].tolist() == pytest.approx(case["mass"], abs=1e-4)
    assert batch.tokens[order, 0].tolist() == pytest.approx(case["first_channel"], abs=1e-4)
    batch.check()


def test_diffrate_may_compare_keys_and_count_sizes():
    keys = keys_of(dice_of(0))
    made = case_of(TokenBatch.from_uniform(keys[None], 1), keys.flip(1), attention_of(dice_of(1), 41).mean(0))
    counted = made.reduced(DiffRate(merge_kept=20, similarity="keys", sizes="counted"))
    scaled = made.reduced(DiffRate(merge_kept=20))
    assert counted.mass is None
    assert torch.equal(counted.masses, counted.sizes.float())
    assert torch.allclose((counted.tokens * counted.sizes[:, None]).sum(0), keys.sum(0), atol=1e-4)
    assert bool((scaled.masses <= scaled.sizes).all())
    assert bool((scaled.masses < scaled.sizes).any())


@pytest.mark.parametrize("case", MADE_UP["ats_haurum"]["cases"], ids=lambda c: f"seed{c['seed']}")
def test_ats_samples_as_the_public_code_after_the_paper(case):
    dice = dice_of(case["seed"])
    attention = attention_of(dice, PATCHES + 1)
    values = torch.tensor(dice.standard_normal((2, PATCHES + 1, 4)), dtype=torch.float32)
    significance = (attention * values.norm(dim=-1)).sum(dim=0)[1:]
    # That code's range may end before the last quantile.
    found = sampled(significance, MADE_UP["ats_haurum"]["tokens"])[: MADE_UP["ats_haurum"]["quantiles"]]
    assert sorted(set(found.tolist())) == case["kept"]


@pytest.mark.parametrize("case", MADE_UP["ats_authors"]["cases"], ids=lambda c: f"seed{c['seed']}")
def test_ats_samples_as_the_authors_code(case):
    dice = dice_of(case["seed"])
    attention = attention_of(dice, PATCHES + 1)
    values = torch.tensor(dice.standard_normal((2, PATCHES + 1, 4)), dtype=torch.float32)
    batch = TokenBatch.from_uniform(torch.zeros(1, PATCHES + 1, 8), 1)
    norms = values.transpose(0, 1).flatten(1).norm(dim=1)
    made = case_of(batch, torch.ones(PATCHES + 1, 8), attention.mean(0), layer=3, value_norm=norms)
    after = made.reduced(AdaptiveTokenSampling(MADE_UP["ats_authors"]["tokens"], rule="authors"))
    assert [patch for patch, token in enumerate(after.merge_map[0].tolist()) if token != DROPPED] == case["kept"]


def test_the_norm_of_all_heads_values_reaches_the_reduction(victim, photographs):
    seen = {}

    class Looking(AdaptiveTokenSampling):
        def assign(self, state, rng):
            seen["norm"], seen["significance"] = state.value_norm, state.significance
            return super().assign(state, rng)

    backbone = TimmViT(victim.model)
    with torch.no_grad():
        batch = backbone.embed(victim.normalise(photographs.select([0]).images()))
        run_edge(backbone, batch, ("a",), Looking(64, [0], rule="authors"), RNG, cut=1, proportional=False)
        block = victim.model.blocks[0]
        values = block.attn.qkv(block.norm1(batch.tokens))[:, 2 * backbone.width :]
    assert torch.allclose(seen["norm"], values.norm(dim=1), rtol=1e-5)


WEIGHTS, FOLDER = os.environ.get("LEAKGAUGE_VIT_S14"), os.environ.get("LEAKGAUGE_PHOTOGRAPHS")


def photographs_of_file() -> torch.Tensor:
    """The photographs (8, 3, 224, 224) that the published code got."""
    crops = []
    for name in PHOTOGRAPHS["names"]:
        picture = Image.open(next(Path(str(FOLDER)).rglob(name)))
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        crop = picture.convert("RGB").crop((left, top, left + side, top + side)).resize((224, 224))
        crops.append(torch.from_numpy(np.asarray(crop).copy()).permute(2, 0, 1).float() / 255)
    return (torch.stack(crops) - 0.45) / 0.225


def clusters(named: list[int]) -> list[frozenset[int]]:
    """For every patch the patches of its token; none for a dropped one."""
    return [frozenset(p for p, other in enumerate(named) if other == own != DROPPED) for own in named]


@pytest.mark.slow
@pytest.mark.skipif(not (WEIGHTS and FOLDER), reason="set LEAKGAUGE_VIT_S14 and LEAKGAUGE_PHOTOGRAPHS")
@pytest.mark.parametrize("method", ["pitome", "diffrate", "ats_authors", "ats_haurum"])
def test_photographs_reduce_as_under_the_published_code(method, monkeypatch):
    digest = hashlib.sha256(Path(str(WEIGHTS)).read_bytes()).hexdigest()
    if digest not in PHOTOGRAPHS["model"]:
        pytest.skip("the published code ran on other weights")
    if method == "ats_haurum":
        taken = PHOTOGRAPHS[method]["quantiles"]
        monkeypatch.setattr(
            "leakgauge.defenses.reductions.ats.sampled", lambda own, samples: sampled(own, samples)[:taken]
        )
    backbone = TimmViT(load_timm_model("vit_small_patch14_dinov2", Path(str(WEIGHTS)), image_px=224).model)
    reduction = create("reductions", method.split("_")[0], PHOTOGRAPHS[method]["options"], where="test")
    ids = tuple(PHOTOGRAPHS["names"])
    with torch.no_grad():
        batch = backbone.embed(photographs_of_file())
        after, _ = run_edge(backbone, batch, ids, reduction, RNG, cut=12, proportional=reduction.proportional)
    shares = []
    for own, published in zip(after.merge_map, PHOTOGRAPHS[method]["clusters"], strict=True):
        pairs = list(zip(clusters(labels(own)), clusters(published), strict=True))
        shares.append(sum(one == other for one, other in pairs) / len(pairs))
    # Where two energies or similarities tie within rounding (3e-8 in one photograph), the later blocks part ways.
    assert sum(share == 1 for share in shares) >= 6, shares
