"""Fixtures shared by the tests of the image folder task."""

from pathlib import Path

import pytest
from picture_folders import labelled_content, save_weights, write


@pytest.fixture(scope="session")
def labelled(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("labelled"), labelled_content())


@pytest.fixture(scope="session")
def flat(tmp_path_factory) -> Path:
    content = {name.replace("/", "_"): data for name, data in labelled_content().items()}
    return write(tmp_path_factory.mktemp("flat"), content | {"labels.csv": b"a,b", ".hidden.png": b"no image"})


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> dict[str, str]:
    """Random weights of the full depth: with a head of 1000 classes, with one of three, and without."""
    root = tmp_path_factory.mktemp("weights")
    made = {"head": 1000, "three": 3, "headless": 0}
    return {n: str(save_weights(root / f"{n}.safetensors", depth=12, num_classes=c)) for n, c in made.items()}
