"""Re-identification: against brute force, with ties and unusable features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from leakgauge.harness.scoring import identification
from leakgauge.harness.scoring.identification import ranked_first, reid_top1


def features(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_agrees_with_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identification, "_ROWS", 7)
    gallery = features(50, 16)
    queries = gallery + 1.5 * features(50, 16, seed=1)
    q, g = queries.double().numpy(), gallery.double().numpy()
    cosine = (q / np.linalg.norm(q, axis=1, keepdims=True)) @ (g / np.linalg.norm(g, axis=1, keepdims=True)).T
    expected = (cosine.argmax(axis=1) == np.arange(50)).astype(float)
    assert 0 < expected.mean() < 1
    hits = reid_top1(queries, gallery)
    assert hits.dtype == torch.float32
    assert hits.tolist() == expected.tolist()


def test_perfect_and_scaled_reconstructions_are_identified() -> None:
    gallery = features(20, 8)
    assert reid_top1(gallery, gallery).tolist() == [1.0] * 20
    assert reid_top1(1e-6 * gallery, 1e6 * gallery).tolist() == [1.0] * 20
    assert reid_top1(gallery.roll(1, dims=0), gallery).sum() == 0
    assert reid_top1(-gallery, gallery).sum() == 0


def test_features_without_information_are_at_chance() -> None:
    hits = reid_top1(features(2000, 32), features(2000, 32, seed=1))
    assert hits.mean() < 0.005


@pytest.mark.parametrize("width", [3, 384, 1000])
def test_a_tie_does_not_count(width: int) -> None:
    gallery = features(300, width)
    gallery[251] = gallery[3]
    gallery[299] = 2 * gallery[100]
    hits = reid_top1(gallery, gallery)
    tied = [3, 100, 251, 299]
    assert hits[tied].tolist() == [0.0] * 4
    assert hits.sum() == 296


def test_collapsed_features_identify_nothing() -> None:
    same = features(1, 64).expand(10, 64)
    assert reid_top1(features(10, 64), same).sum() == 0
    assert reid_top1(same, same).sum() == 0


def test_unusable_features_are_unscored() -> None:
    queries, gallery = features(6, 4), features(6, 4)
    queries[1, 0] = math.nan
    queries[2] = 0.0
    gallery[3, 2] = math.inf
    hits = reid_top1(queries, gallery)
    assert hits.isnan().tolist() == [False, True, True, True, False, False]
    assert hits[[0, 4, 5]].tolist() == [1.0] * 3


def test_a_gallery_without_rivals_identifies_nothing() -> None:
    assert reid_top1(features(1, 4), features(1, 4)).isnan().all()
    assert reid_top1(features(0, 4), features(0, 4)).shape == (0,)
    gallery = features(2, 4)
    gallery[1] = math.nan
    assert reid_top1(features(2, 4), gallery).isnan().all()


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\(B, D\)"):
        reid_top1(features(3, 4), features(4, 4))


def test_ranked_first_by_brute_force() -> None:
    scores, own = features(40, 25), torch.arange(40) % 25
    expected = [float(scores[i].argmax() == own[i]) for i in range(40)]
    assert 0 < sum(expected) < 40
    assert ranked_first(scores, own).tolist() == expected
    # Neither scale nor unit of a score matters.
    assert ranked_first(scores.double() * 1e-30, own).tolist() == expected
    assert ranked_first(scores - 1e6, own).tolist() == ranked_first((scores - 1e6).double(), own).tolist()


def test_a_tied_rank_does_not_count() -> None:
    scores = torch.tensor([[3.0, 3, 1], [3, 2, 1], [0, 0, 0]], dtype=torch.float64)
    scores[1, 1] = 3 - 1e-14
    assert ranked_first(scores, torch.tensor([0, 0, 1])).tolist() == [0.0, 0.0, 0.0]
    assert ranked_first(torch.tensor([[3.0, 2]]), torch.tensor([0])).tolist() == [1.0]


def test_a_gallery_of_one_is_unscored() -> None:
    assert ranked_first(torch.zeros(1, 1), torch.zeros(1, dtype=torch.long)).isnan().all()
