"""``leakgauge.measure``: a user's own model and images, as they stand in memory, without a YAML file."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from leakgauge.benchmarks.tasks.tensor_files import Channels, TensorFiles
from leakgauge.benchmarks.victims.described_vit import describe
from leakgauge.front_door import OperatingPoint, Point, Progress, Run, run
from leakgauge.harness.errors import ConfigError, DataError, LeakgaugeError
from leakgauge.harness.suite.registry import load, name_of

POINTS: tuple[Point, ...] = ("undefended", OperatingPoint("threshold", "merged_half", share=0.5))
ATTACKS = ("floor_mean", "ridge", "set_decoder")
COMPARED = 4
"""Images on which the model that is built anew must answer as the user's does."""


def measure(
    model: nn.Module,
    images: Any,
    labels: Any = None,
    *,
    cut: int = 4,
    points: Sequence[Point] | None = None,
    attacks: Sequence[str | dict[str, Any]] = ATTACKS,
    auxiliary: Any = None,
    groups: Any = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    **keys: Any,
) -> Run:
    """Measures how much of a user's images an attacker rebuilds from the tokens of a user's model.

    The model and the images are written beside the run, so that it is resumed, scored and reported as any other; the
    model itself stays as it is. Copies are left out, near duplicates share a split, and a fifth of the images is
    attacked; the attacker trains on three fifths, or on ``auxiliary``.

    Args:
        model: A timm VisionTransformer, trained or fine-tuned.
        images: (N, 3, px, px) or (N, px, px, 3), a tensor or an array: uint8, or floats in [0, 1], which are rounded to
            255ths; not normalised. ``px`` is what the model takes.
        labels: (N,) class numbers of the model's head; quality is then top-1 accuracy. None: agreement with the
            undefended model.
        cut: Blocks on the edge; what is sent lies behind them.
        points: Operating points, as ``run`` takes them. By default undefended, and half of the matches merged in
            every block.
        attacks: Attacks by name, or ``{"name": ..., options}``. Without a floor among them ``floor_mean`` is added:
            leakage is what lies above the best floor.
        auxiliary: Images of the attacker's own, in the form of ``images``, none of which is among these.
        groups: (N,) a number an image; images of one number depend on one another (crops of one photograph, pictures
            of one person), share a split, and count once in intervals. None: what is found to overlap.
        mean: Per-channel mean that the model was trained with, of images in [0, 1]; None takes that of the name that
            timm built it by.
        std: Per-channel deviation, likewise.
        class_names: Names of the classes, for tables.
        name: What reports call the model.
        out: The run folder; a temporary one if nothing is said. The inputs go to ``<out>.inputs``.
        device: auto, cpu or cuda.
        workers: Processes; one a core if nothing is said.
        progress: Called with cells done and cells in all; in a notebook a bar if nothing is said.
        keys: Keys of a suite: ``evaluation_images``, ``seeds``, ``channels``, ``threat_models``, ...

    Returns:
        The run, as ``leakgauge.run`` returns it.

    Raises:
        LeakgaugeError: Model or images are not of that form, or the suite is at fault.

    Example:
        >>> import leakgauge, timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=2)
        >>> leakgauge.measure(model, torch.rand(8, 3, 48, 48))
        Traceback (most recent call last):
        ...
        leakgauge.harness.errors.DataError: images: they are 48 x 48 px, the model takes 32 x 32 -- resize them first
    """
    if "task" in keys:
        raise ConfigError("`measure` makes the task itself", where="task", hint="leave it out, or call `leakgauge.run`")
    files = inputs_of(model, images, labels, auxiliary, (mean, std), class_names, name, groups)
    folder = Path(tempfile.mkdtemp(prefix="leakgauge-")) / "run" if out is None else Path(out)
    defense = {"name": "split_pipeline", **_mapping(keys.pop("defense", {})), "cut": cut}
    attacks = _with_floor(attacks)
    with _written(files, folder) as place:
        return run(
            {"name": "measure", **keys, "task": {"name": "tensors", "path": str(place.absolute())}, "defense": defense},
            out=folder,
            device=device,
            workers=workers,
            progress=progress,
            points=POINTS if points is None else points,
            attacks=attacks,
        )


@contextmanager
def _written(files: TensorFiles, folder: Path) -> Iterator[Path]:
    """Writes the inputs of a run beside its folder; a call that is refused before there is a run takes them away."""
    inputs = folder.with_name(f"{folder.name}.inputs")
    before = set(inputs.iterdir()) if inputs.is_dir() else set()
    place = files.write(inputs)
    try:
        yield place
    except LeakgaugeError:
        if not folder.exists() and place not in before:
            shutil.rmtree(place, ignore_errors=True)
            with suppress(OSError):  # other inputs are there
                inputs.rmdir()
        raise


def _mapping(defense: Any) -> dict[str, Any]:
    if not isinstance(defense, dict):
        raise ConfigError(f"{defense!r} is no mapping of options", where="defense", hint="give {option: value}")
    return defense


def _with_floor(attacks: Sequence[str | dict[str, Any]]) -> list[str | dict[str, Any]]:
    if isinstance(attacks, str):
        raise ConfigError(f"{attacks!r} is one name, not a list of them", where="attacks", hint=f"give [{attacks!r}]")
    floors = [name for name in map(name_of, attacks) if name and getattr(load("attacks", name), "floor", False)]
    return [*attacks] if floors else ["floor_mean", *attacks]


def inputs_of(
    model: nn.Module,
    images: Any,
    labels: Any,
    auxiliary: Any,
    fed: tuple[Sequence[float] | None, Sequence[float] | None],
    class_names: Sequence[str] | None,
    name: str | None,
    groups: Any = None,
) -> TensorFiles:
    """Returns a model and images as they are written down; arguments as of ``measure``, ``fed`` its mean and std.

    Raises:
        LeakgaugeError: They are not of the form that ``measure`` takes.
    """
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size is not None and size[0] != size[1]:
        said = f"it takes images of {size[1]} x {size[0]} px"
        raise ConfigError(said, where="model", hint="give a model of square images")
    side = int(size[0]) if size is not None and size[0] == size[1] else None
    pixels = _pixels(images, "images", side)
    mean, std, source = _normalisation(model, *fed)
    shown = pixels[:COMPARED].float() / 255.0
    shown = (shown - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    description, weights = describe(model, shown)
    classes = int(description["arguments"]["num_classes"])
    if isinstance(class_names, str):
        raise ConfigError("it is one text, not a list of names", where="class_names", hint="give one name a class")
    if class_names is not None and len(class_names) != classes:
        what = f"{len(class_names)} names for the {classes} classes of the model's head"
        raise ConfigError(what, where="class_names", hint="give one a class, in the order of their numbers")
    return TensorFiles(
        name=name or _called(model, source),
        model=description,
        weights=weights,
        mean=mean,
        std=std,
        normalised_by=source,
        classes=classes,
        pixels=pixels,
        labels=None if labels is None else _labels(labels, len(pixels), classes),
        auxiliary=None if auxiliary is None else _pixels(auxiliary, "auxiliary", side),
        groups=None if groups is None else _numbers(groups, "groups", len(pixels)),
        class_names=None if class_names is None else tuple(map(str, class_names)),
    )


def _called(model: nn.Module, source: str) -> str:
    settings = getattr(model, "pretrained_cfg", None)
    named = settings.get("architecture") if isinstance(settings, dict) else None
    return f"{named or type(model).__name__}, mean and std {source}"


def _array(values: Any, what: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    try:
        return torch.from_numpy(np.ascontiguousarray(values))
    except (TypeError, ValueError) as error:
        said = f"no array of numbers: {str(error).partition('. ')[0]}"[:120]
        raise DataError(said, where=what, hint="give a tensor or an array") from error


def _pixels(given: Any, what: str, side: int | None) -> Tensor:
    """Returns images as (N, 3, px, px) uint8 on memory of their own."""
    array = _array(given, what)
    if array.ndim != 4 or len(array) == 0:
        said = f"shape {tuple(array.shape)}, not (N, 3, px, px)"
        raise DataError(said, where=what, hint="give a batch of colour images")
    first, last = array.shape[1] == 3, array.shape[3] == 3
    if first == last:
        said = f"shape {tuple(array.shape)} does not say which axis holds the 3 colours"
        raise DataError(said, where=what, hint="give (N, 3, px, px) or (N, px, px, 3)")
    array = array if first else array.permute(0, 3, 1, 2)
    height, width = array.shape[2:]
    if side is not None and (height, width) != (side, side):
        said = f"they are {width} x {height} px, the model takes {side} x {side}"
        raise DataError(said, where=what, hint="resize them first")
    if array.dtype == torch.uint8:
        return array.contiguous().clone()
    if not array.is_floating_point():
        raise DataError(f"they are {array.dtype}", where=what, hint="give uint8, or floats in [0, 1]")
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)) or bool(array.isnan().any()):
        raise DataError("they hold NaN or infinite values", where=what, hint="give floats in [0, 1]")
    if low < 0 or high > 1:
        said = f"their values run from {low:.3g} to {high:.3g}, not from 0 to 1"
        raise DataError(said, where=what, hint="undo the normalisation, or give uint8")
    return (array.float() * 255.0).round().to(torch.uint8).contiguous()


def _numbers(given: Any, what: str, count: int) -> Tensor:
    """Returns a whole number an image, (N,) int64."""
    array = _array(given, what)
    if array.shape != (count,):
        said = f"shape {tuple(array.shape)} for {count} images"
        raise DataError(said, where=what, hint="give one number an image")
    if array.is_floating_point() or array.dtype == torch.bool:
        raise DataError(f"they are {array.dtype}", where=what, hint="give whole numbers")
    return array.long().clone()


def _labels(given: Any, count: int, classes: int) -> Tensor:
    array = _numbers(given, "labels", count)
    if int(array.min()) < 0 or (classes and int(array.max()) >= classes):
        said = f"they run from {int(array.min())} to {int(array.max())}, the head has {classes} classes"
        raise DataError(said, where="labels", hint="number the classes as the model's head does")
    return array


def _normalisation(
    model: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Channels, Channels, str]:
    """Returns mean, deviation, and where they come from."""
    if (mean is None) != (std is None):
        raise ConfigError("one of mean and std is missing", where="mean, std", hint="give both")
    if mean is not None and std is not None:
        return _three(mean, "mean"), _three(std, "std"), "as given"
    settings = getattr(model, "pretrained_cfg", None)
    if isinstance(settings, dict) and settings.get("mean") and settings.get("std") and settings.get("architecture"):
        source = f"assumed from the name {settings['architecture']}"
        return _three(settings["mean"], "mean"), _three(settings["std"], "std"), source
    what = "the model does not say how its images are normalised"
    raise ConfigError(what, where="mean, std", hint="give the mean and std that it was trained with")


def _three(values: Sequence[float], what: str) -> Channels:
    numbers = [float(value) for value in values]
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)) or (what == "std" and min(numbers) <= 0):
        raise ConfigError(f"{values!r} is not three numbers in range", where=what, hint="give one a channel")
    return numbers[0], numbers[1], numbers[2]
