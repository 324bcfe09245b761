"""What an attack's pictures of other images reach against an original: measured with each cell, and scored again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_task import SMALL_SUITE, Toy, register

from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.rescoring import rescore
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.values.columns import IMAGE_COLUMNS

CPU = torch.device("cpu")
POINTS = [{"name": "undefended"}, {"name": "merged", "reduction": {"name": "threshold", "thresholds": 0.5}}]
SUITE = {**SMALL_SUITE, "operating_points": POINTS, "evaluation_images": 24, "seeds": [0, 1]}


def run_of(folder):
    return run_suite(prepare(parse_suite(SUITE), CPU), folder, CPU, 1, lambda done, total: None)


@pytest.fixture
def run(tmp_path, monkeypatch):
    register(monkeypatch, tasks_toy="toy_task:Toy")
    return run_of(tmp_path / "run")


def psnr_db(one, other):
    error = ((one.astype(float) - other) / 255) ** 2
    return -10 * np.log10(np.maximum(error.mean(axis=(-3, -2, -1)), 1e-10))


def test_each_cell_holds_the_psnr_of_another_image_s_picture_and_all_pair_alike(run):
    images, originals = run.images(), run.read_images("originals", 24, 16, 16)
    pairs = set()
    for key, rows in images.groupby("cell", sort=False):
        rebuilt = run.read_images(str(key), 24, 16, 16)
        every = psnr_db(originals[:, None], rebuilt[None])
        assert np.diag(every) == pytest.approx(rows["psnr_db"].to_numpy(), abs=1e-3)
        if rows["attack"].iloc[0] == "floor_mean":
            assert rows["permuted_psnr_db"].tolist() == pytest.approx(rows["psnr_db"].tolist(), abs=1e-3)
            continue
        found = np.abs(every - rows["permuted_psnr_db"].to_numpy()[:, None])
        assert found.min(axis=1).max() < 1e-3
        pairs.add(tuple(found.argmin(axis=1).tolist()))
    (pair,) = pairs
    groups = rows["group"].to_numpy()
    assert sorted(pair) == list(range(24))
    assert (groups[list(pair)] != groups).all()
    assert "permuted_psnr_db" in {column.name for column in IMAGE_COLUMNS}


def test_it_is_scored_again_from_the_pictures(run):
    before = run.images()
    for key in run.done():
        part = run.read_part(key)
        kept = {name: values for name, values in part.measured.items() if name != "permuted_psnr_db"}
        run.write_part(replace(part, measured=kept))
    rescore(run, CPU)
    assert RunFolder(run.path).images()["permuted_psnr_db"].tolist() == before["permuted_psnr_db"].tolist()


def test_of_one_cluster_nothing_is_unrelated(tmp_path, monkeypatch):
    register(monkeypatch, tasks_toy="toy_task:Toy")
    split = Toy.split
    alike = lambda images: replace(images, groups=torch.zeros(len(images), dtype=torch.long))  # noqa: E731
    monkeypatch.setattr(Toy, "split", lambda self, name: alike(split(self, name)))
    images = run_of(tmp_path / "run").images()
    assert images["permuted_psnr_db"].isna().all()
    assert images["psnr_db"].notna().all()
