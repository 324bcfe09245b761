"""The folder that holds a user's own model and images: written whole or not at all, and read with suspicion."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from leakgauge.benchmarks.victims.described_vit import DESCRIPTION, WEIGHTS
from leakgauge.harness.errors import DataError
from leakgauge.harness.store.run_folder import write_atomic
from leakgauge.harness.system.files.bounded_file import read_bytes, read_json
from leakgauge.harness.system.plain_text import plain

FORMAT = 1
IMAGES = "images.safetensors"
MOST_JSON, MOST_BYTES = 2**22, 2**36
LEAST_PX, MOST_NAME = 8, 80
_HINT = "let leakgauge.measure() write the folder anew"
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class TensorFiles:
    """A model and images.

    Args:
        name: What reports call the model.
        model: Its description (``described_vit.describe``).
        weights: Its weights, as safetensors.
        mean: Per-channel mean that it subtracts from images in [0, 1].
        std: Per-channel deviation, likewise.
        normalised_by: Where both come from, in words.
        classes: Classes of its head, 0 without one.
        pixels: (N, 3, px, px) uint8.
        labels: (N,) int64, or None.
        auxiliary: (M, 3, px, px) uint8 images of the attacker's own, or None.
        class_names: Names of the classes, or None.
        groups: (N,) int64, equal where images depend on one another; or None.
    """

    name: str
    model: dict[str, Any]
    weights: bytes
    mean: Channels
    std: Channels
    normalised_by: str
    classes: int
    pixels: Tensor
    labels: Tensor | None = None
    auxiliary: Tensor | None = None
    class_names: tuple[str, ...] | None = None
    groups: Tensor | None = None

    def write(self, folder: Path) -> Path:
        """Writes everything into a folder below ``folder`` that is named by its content; returns it.

        What is there already is left as it is: a run that was begun with it can be resumed.

        Raises:
            StoreError: It cannot be written.
        """
        columns = {name: getattr(self, name) for name in ("pixels", "labels", "auxiliary", "groups")}
        images = save({name: column.contiguous() for name, column in columns.items() if column is not None})
        stated = {
            "format": FORMAT,
            "name": self.name,
            "model": self.model,
            "mean": list(self.mean),
            "std": list(self.std),
            "normalised_by": self.normalised_by,
            "classes": self.classes,
            "class_names": None if self.class_names is None else list(self.class_names),
            "sha256": {WEIGHTS: _sha256(self.weights), IMAGES: _sha256(images)},
        }
        text = json.dumps(stated, indent=1, sort_keys=True).encode()
        place = folder / _sha256(text)[:16]
        place.mkdir(parents=True, exist_ok=True)
        # The description last: it vouches for the other two.
        for name, data in ((WEIGHTS, self.weights), (IMAGES, images), (DESCRIPTION, text)):
            path = place / name
            if not path.is_file() or path.stat().st_size != len(data) or path.read_bytes() != data:
                write_atomic(path, data)
        return place

    @classmethod
    def read(cls, folder: Path) -> TensorFiles:
        """Reads what ``write`` wrote.

        Raises:
            StoreError: A file is missing or cannot be read.
            DataError: It is damaged, or was changed.
        """
        where = folder / DESCRIPTION
        stated = read_json(where, MOST_JSON, hint=_HINT)
        if not isinstance(stated, dict) or stated.get("format") != FORMAT:
            raise _damaged(where, "it is no description of this version")
        data = {name: read_bytes(folder / name, MOST_BYTES, hint=_HINT) for name in (WEIGHTS, IMAGES)}
        sums = stated.get("sha256")
        for name, content in data.items():
            if not isinstance(sums, dict) or sums.get(name) != _sha256(content):
                raise _damaged(folder / name, "its checksum is not the one that was written")
        try:
            columns = load(data[IMAGES])
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise _damaged(folder / IMAGES, "it is no safetensors file") from error
        found = _checked(stated, columns, where)
        return cls(**found, weights=data[WEIGHTS])


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"damaged: {what}", where=str(path), hint=_HINT)


def _checked(stated: dict[str, Any], columns: dict[str, Tensor], where: Path) -> dict[str, Any]:
    """Returns the fields of a description and its images, each of the kind that it must be."""
    model, classes, names = stated.get("model"), stated.get("classes"), stated.get("class_names")
    if not isinstance(model, dict) or not isinstance(model.get("arguments"), dict):
        raise _damaged(where, "`model` is missing")
    if type(classes) is not int or classes < 0:
        raise _damaged(where, "`classes` is no number")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise _damaged(where, "`class_names` are no names")
    pixels, labels, auxiliary, groups = (columns.get(name) for name in ("pixels", "labels", "auxiliary", "groups"))
    if not _square(pixels) or (auxiliary is not None and not _square(auxiliary)):
        raise _damaged(where, "the images are not uint8 (N, 3, px, px)")
    assert pixels is not None
    for name, column in (("labels", labels), ("groups", groups)):
        if column is not None and (column.shape != (len(pixels),) or column.dtype != torch.int64):
            raise _damaged(where, f"the {name} are not one whole number an image")
    if labels is not None and classes and not bool(((labels >= 0) & (labels < classes)).all()):
        raise _damaged(where, f"a label is not from 0 to {classes - 1}")
    if auxiliary is not None and auxiliary.shape[1:] != pixels.shape[1:]:
        raise _damaged(where, "the auxiliary images are of another size")
    return {
        "name": plain(str(stated.get("name")), keep="")[:MOST_NAME],
        "model": model,
        "mean": _channels(stated.get("mean"), where),
        "std": _channels(stated.get("std"), where, least=1e-6),
        "normalised_by": plain(str(stated.get("normalised_by")), keep="")[:MOST_NAME],
        "classes": classes,
        "pixels": pixels,
        "labels": labels,
        "auxiliary": auxiliary,
        "groups": groups,
        "class_names": None if names is None else tuple(plain(name, keep="")[:MOST_NAME] for name in names),
    }


def _square(pixels: Tensor | None) -> bool:
    return (
        pixels is not None
        and pixels.dtype == torch.uint8
        and pixels.ndim == 4
        and pixels.shape[1] == 3
        and pixels.shape[2] == pixels.shape[3] >= LEAST_PX
        and len(pixels) > 0
    )


def _channels(values: Any, where: Path, least: float = -math.inf) -> Channels:
    if not isinstance(values, Sequence) or len(values) != 3:
        raise _damaged(where, "mean or deviation is not three numbers")
    if not all(type(value) in (int, float) and math.isfinite(value) and value >= least for value in values):
        raise _damaged(where, "mean or deviation is not three numbers in range")
    return float(values[0]), float(values[1]), float(values[2])
