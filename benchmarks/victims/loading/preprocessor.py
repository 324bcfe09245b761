"""The image preprocessor's config of transformers: how images are normalised, or what its family takes without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from leakgauge.benchmarks.victims.loading.input_settings import ASSUMED, Channels, Normalisation
from leakgauge.harness.errors import DataError

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"

_HALF: tuple[Channels, Channels] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: tuple[Channels, Channels] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
NORMALISATION = {
    "vit": _HALF,
    "dinov2": _IMAGENET,
    "dinov2_with_registers": _IMAGENET,
    "clip": CLIP,
    "clip_vision_model": CLIP,
    "siglip": _HALF,
    "siglip_vision_model": _HALF,
}
"""Mean and standard deviation that the image processor of each family takes where nothing else is said."""


def preprocessor_settings(name: str, pretrained: bool) -> dict[str, Any] | None:
    """Returns the contents of the preprocessor's config, None where there is none.

    Where a processor for images and text was saved, it lies within that one's config.
    """
    from transformers.utils import cached_file  # noqa: PLC0415 - slow, see above

    for file, part in ((PROCESSOR, "image_processor"), (PREPROCESSOR, None)):
        found = cached_file(name, file, local_files_only=not pretrained, _raise_exceptions_for_missing_entries=False)
        data = json.loads(Path(found).read_text(encoding="utf-8")) if found else None
        if found and not isinstance(data, dict):
            raise DataError("not a mapping", where=f"{name}/{file}", hint="restore the file")
        if data is not None and (part is None or isinstance(data.get(part), dict)):
            settings: dict[str, Any] = data if part is None else data[part]
            return settings
    return None


def normalisation(
    data: dict[str, Any] | None, family: str, name: str, stated: Normalisation | None = None
) -> Normalisation:
    """Settles mean and standard deviation.

    Args:
        data: The preprocessor's config, None where there is none.
        family: Model type of the image tower, whose defaults fill what is missing.
        name: The model, for messages.
        stated: What is taken instead, where options state all of it.

    Raises:
        DataError: Pixels are not scaled to [0, 1], or values are missing and the family is not known.
    """
    if stated is not None:
        return stated
    if data is None:
        if family not in NORMALISATION:
            raise DataError(
                f"how to normalise images for {family!r} is not known",
                where=name,
                hint=f"set `mean` and `std`, or add a {PREPROCESSOR} with `image_mean` and `image_std`",
            )
        return Normalisation(*NORMALISATION[family], f"{ASSUMED}: no {PREPROCESSOR}")
    where = f"{name}/{PREPROCESSOR}"
    if not data.get("do_rescale", True) or abs(float(data.get("rescale_factor", 1 / 255)) * 255 - 1) > 1e-3:
        raise DataError("pixels are not scaled to [0, 1]", where=where, hint="take a model that is fed such pixels")
    if not data.get("do_normalize", True):
        return Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), f"from {PREPROCESSOR}")
    if "image_mean" in data and "image_std" in data:
        mean, std = (_channels(data[key], where) for key in ("image_mean", "image_std"))
        if min(std) <= 0:
            raise DataError(f"a deviation of {min(std):g} divides by nothing", where=where, hint="restore the file")
        return Normalisation(mean, std, f"from {PREPROCESSOR}")
    return normalisation(None, family, name)._replace(source=f"{ASSUMED}: {PREPROCESSOR} has none")


def _channels(values: Any, where: str) -> Channels:
    """Reads one number a channel."""
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        raise DataError(f"{values!r} is not three numbers, one a channel", where=where, hint="restore the file")
    return float(values[0]), float(values[1]), float(values[2])
