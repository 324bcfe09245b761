"""Fixtures shared by all tests."""

from __future__ import annotations

import os

import pytest
import torch

from leakgauge.benchmarks.tasks.photo_crops.photos import crop_set
from leakgauge.benchmarks.victims.photos_vit import load_photos_vit
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.values.images import ImageSet


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors: more threads only wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_token_cache():
    """Tests run the code, not what earlier code left on disk; those about the cache name a folder of their own."""
    before = os.environ.get("LEAKGAUGE_CACHE")
    os.environ["LEAKGAUGE_CACHE"] = "off"
    yield
    os.environ.pop("LEAKGAUGE_CACHE")
    if before is not None:
        os.environ["LEAKGAUGE_CACHE"] = before


@pytest.fixture(scope="session")
def victim() -> Victim:
    return load_photos_vit()


@pytest.fixture(scope="session")
def photographs() -> ImageSet:
    """32 evaluation crops of the embedded task, one of every other class."""
    return crop_set("evaluation").select(range(0, 560, 17)).select(range(32))
