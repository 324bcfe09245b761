"""Loads a vision model of transformers from a folder that ``save_pretrained`` wrote, or from the hub.

Only safetensors are read and no code from the folder or hub is run. transformers is imported where it is first needed,
because that takes seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leakgauge.benchmarks.victims.loading.input_settings import (
    Normalisation,
    OwnSettings,
    channels,
    own_of_preprocessor,
)
from leakgauge.benchmarks.victims.loading.loaded_model import LoadedModel
from leakgauge.benchmarks.victims.loading.preprocessor import (
    NORMALISATION,
    PREPROCESSOR,
    normalisation,
    preprocessor_settings,
)
from leakgauge.harness.errors import ConfigError, DataError, LeakgaugeError

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")

_TOWERS = {
    "clip": "CLIPVisionModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}
_PROJECTED = "CLIPVisionModelWithProjection"


class _Input(NamedTuple):
    """How images are fed: normalisation, side in pixels, and what else stands beside the weights."""

    normalised: Normalisation
    px: int
    own: OwnSettings


def check_model_folder(folder: Path) -> None:
    """Raises DataError where a folder lacks the files that ``save_pretrained`` writes."""
    hint = "give a folder as `save_pretrained` writes it, or set `pretrained: true` for a name on the hub"
    if not folder.is_dir():
        raise DataError("no such model folder", where=str(folder), hint=hint)
    if not (folder / CONFIG).is_file():
        raise DataError(f"the folder holds no {CONFIG}", where=str(folder), hint=hint)
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise DataError(
            f"the folder holds no {WEIGHTS[0]}; other formats can run code and are not read",
            where=str(folder),
            hint="load it where you trust it, and call `save_pretrained` again",
        )


def load_transformers_model(
    name: str,
    *,
    pretrained: bool = False,
    image_px: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> LoadedModel:
    """Loads a model: the classifier where the config's ``architectures`` names one, else the bare image tower.

    Args:
        name: A folder, or with ``pretrained`` a name on the hub.
        pretrained: Download from the hub.
        image_px: Side of the images; None takes that of the preprocessor's config, else that of the model's config.
            Where it is not the model's own, the position embedding is resized as the model itself would.
        mean: Per-channel mean that the model was trained with, of images in [0, 1]; None takes that of the
            preprocessor's config, else that of the family.
        std: Per-channel deviation, likewise.

    Raises:
        ConfigError: The model or the image size does not fit.
        DataError: The files are missing, corrupt or contradict one another.
    """
    if not pretrained:
        check_model_folder(Path(name))
    import transformers  # noqa: PLC0415 - slow, see above

    source: dict[str, Any] = {"local_files_only": not pretrained, "trust_remote_code": False}
    with one_line(name, "the config cannot be read"):
        config = transformers.AutoConfig.from_pretrained(name, **source)
    if config.model_type not in NORMALISATION:
        raise _no_image_model(config, [str(kind) for kind in config.architectures or ()])
    kind = _model_class(transformers, config)
    side = _square(getattr(getattr(config, "vision_config", config), "image_size", None), name)
    with one_line(name, f"{PREPROCESSOR} cannot be read"):
        stated = None if mean is None or std is None else Normalisation(channels(mean), channels(std), "")
        fed = _input(preprocessor_settings(name, pretrained), str(config.model_type), side, image_px, name, stated)
    normalised = fed.normalised.stated(mean, std)
    with one_line(name, "the weights cannot be loaded"), quiet():
        options: dict[str, Any] = {"use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
        model, info = kind.from_pretrained(name, **source, **options)
        missing = sorted(info["missing_keys"])
        if missing and kind is transformers.ViTModel and all(key.startswith("pooler.") for key in missing):
            # Many ViT weights hold no pooler; a random one must not be put in its place.
            model, info = kind.from_pretrained(name, **source, **options, add_pooling_layer=False)
            missing = sorted(info["missing_keys"])
    if missing:
        raise DataError(
            f"the weights do not fit {kind.__name__}: {missing[0]!r} is missing",
            where=name,
            hint="check `architectures` in config.json",
        )
    if fed.px != side:
        model = _resized(model, fed.px, name)
    state = model.state_dict()
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise DataError("the weights hold NaN or infinite values", where=name, hint="restore the file")
    head = kind.__name__.endswith("ForImageClassification")
    digest = _digest(state, model.config, normalised, fed.px)
    return LoadedModel(
        model.eval(),
        normalised.mean,
        normalised.std,
        fed.px,
        int(config.num_labels) if head else 0,
        digest,
        normalised.note,
        normalised.said,
        fed.own,
    )


@contextmanager
def one_line(name: str, what: str) -> Iterator[None]:
    """Turns whatever hubs, parsers and loaders raise about a model into a DataError: ``what``, in one line."""
    try:
        yield
    except LeakgaugeError:
        raise
    except Exception as error:  # they raise many kinds
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise DataError(
            f"{what}: {first_line}",
            where=f"model {name!r}",
            hint="restore the files; without network, download the model elsewhere and give its folder",
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers from reporting on loading: what matters of it is checked here."""
    from transformers.utils import logging  # noqa: PLC0415 - slow, see above

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _model_class(transformers: Any, config: Any) -> Any:
    """Returns the class to load."""
    architectures = [str(kind) for kind in config.architectures or ()]
    headed = [kind for kind in architectures if kind.endswith("ForImageClassification")]
    wanted = headed or [kind for kind in architectures if kind == _PROJECTED]
    tower = wanted[0] if wanted else _TOWERS.get(config.model_type)
    if tower is None:
        known = transformers.models.auto.modeling_auto.MODEL_MAPPING
        if type(config) not in known or getattr(config, "vision_config", None) is not None:
            raise _no_image_model(config, architectures)
        kind = known[type(config)]
    else:
        kind = getattr(transformers, tower, None)
    if kind is None or getattr(kind, "main_input_name", "") != "pixel_values":
        raise _no_image_model(config, architectures)
    return kind


def _no_image_model(config: Any, architectures: list[str]) -> ConfigError:
    named = architectures[0] if architectures else config.model_type
    return ConfigError(
        f"{named} is no image model of transformers that can be loaded alone and split",
        where="model",
        hint=f"take one of the families {', '.join(NORMALISATION)}",
    )


def _input(
    data: dict[str, Any] | None, family: str, side: int, asked: int | None, name: str, stated: Normalisation | None
) -> _Input:
    """Settles how images are fed; ``stated`` is a normalisation that options state in full."""
    found, own = normalisation(data, family, name, stated), own_of_preprocessor(data)
    if data is None:
        return _Input(found, asked or side, own)
    cropped = data.get("do_center_crop", "crop_size" in data) and data.get("crop_size")
    size = data["crop_size"] if cropped else data.get("size") if data.get("do_resize", True) else None
    return _Input(found, asked or (_square(size, f"{name}/{PREPROCESSOR}") if size else side), own)


def _square(size: Any, where: str) -> int:
    """Reads the side of a square from a number, a pair, or a mapping with height and width or the shortest edge."""
    if isinstance(size, dict):
        size = [size["shortest_edge"]] if "shortest_edge" in size else [size.get("height"), size.get("width")]
    sides = set(size) if isinstance(size, list | tuple) else {size}
    side = sides.pop()
    if sides or not isinstance(side, int) or side < 1:
        raise DataError(f"image size {size!r} is not a square", where=where, hint="take a model for square images")
    return side


def _resized(model: Any, px: int, name: str) -> Any:
    """Returns the model for images of ``px``, its position embedding interpolated by the model's own method."""
    config = type(model.config).from_dict(model.config.to_dict())
    vision = getattr(config, "vision_config", config)
    patch = _square(vision.patch_size, name)
    if px % patch:
        what, better = f"{px} is not a multiple of the patch size {patch}", max(1, round(px / patch)) * patch
        raise ConfigError(what, where="image_px", hint=f"try {better}")
    state = model.state_dict()
    found = [
        (key, module)
        for prefix, module in model.named_modules()
        for key in (f"{prefix}.position_embeddings", f"{prefix}.position_embedding.weight")
        if hasattr(module, "interpolate_pos_encoding") and key.removeprefix(".") in state
    ]
    if len(found) != 1:
        raise ConfigError(f"the model takes images of {vision.image_size} px only", where="image_px", hint="take these")
    key, embeddings = found[0][0].removeprefix("."), found[0][1]
    places, width = state[key].shape[-2:]
    places += (px // patch) ** 2 - (_square(vision.image_size, name) // patch) ** 2
    with torch.no_grad():
        resized = embeddings.interpolate_pos_encoding(torch.zeros(1, places, width), px, px)
    state[key] = resized.reshape(*state[key].shape[:-2], places, width)
    vision.image_size = px
    pooler = {} if getattr(model, "pooler", True) is not None else {"add_pooling_layer": False}
    fresh: nn.Module = type(model)(config, **pooler)
    fresh.load_state_dict(state)
    return fresh


def _digest(state: dict[str, Tensor], config: Any, fed: Normalisation, px: int) -> str:
    """Returns a hash of all that decides the answers: weights, the config that gives them meaning, and the input."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(f"{key}{tuple(state[key].shape)}".encode())
        digest.update(state[key].contiguous().numpy().tobytes())
    said = {k: v for k, v in config.to_diff_dict().items() if k not in {"transformers_version", "_name_or_path"}}
    digest.update(json.dumps([said, fed.mean, fed.std, px], sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]
