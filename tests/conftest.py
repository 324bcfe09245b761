"""Fixtures shared by all tests."""

from __future__ import annotations

import pytest
import torch

from benchmarks.tasks.photos import crop_set
from benchmarks.victims.photos_vit import load_photos_vit
from harness.contracts import Victim
from harness.images import ImageSet


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors: more threads only wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def victim() -> Victim:
    return load_photos_vit()


@pytest.fixture(scope="session")
def photographs() -> ImageSet:
    """32 evaluation crops of the embedded task, one of every other class."""
    return crop_set("evaluation").select(range(0, 560, 17)).select(range(32))
