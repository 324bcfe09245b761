"""Re-identification: against brute force, with ties and unusable features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from harness.scoring import identification
from harness.scoring.identification import reid_top1


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
