"""Loads a vision model of transformers from a folder that ``save_pretrained`` wrote, or from the hub.

Only safetensors are read and no code from the folder or hub is run. transformers is imported where it is first needed,
because that takes seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.victims.loaded_model import LoadedModel
from harness.errors import ConfigError, DataError, LeakgaugeError

CONFIG, PREPROCESSOR, PROCESSOR = "config.json", "preprocessor_config.json", "processor_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
Channels = tuple[float, float, float]

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
_TOWERS = {
    "clip": "CLIPVisionModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}
_PROJECTED = "CLIPVisionModelWithProjection"


class _Input(NamedTuple):
    """How images are fed: mean, standard deviation, side in pixels, and what of it was assumed."""

    mean: Channels
    std: Channels
    px: int
    note: str


def check_model_folder(folder: Path) -> None:
    """Raises DataError where a folder lacks the files that ``save_pretrained`` writes."""
    mend = "give a folder as `save_pretrained` writes it, or set `pretrained: true` for a name on the hub"
    if not folder.is_dir():
        raise DataError("no such model folder", where=str(folder), mend=mend)
    if not (folder / CONFIG).is_file():
        raise DataError(f"the folder holds no {CONFIG}", where=str(folder), mend=mend)
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise DataError(
            f"the folder holds no {WEIGHTS[0]}; other formats can run code and are not read",
            where=str(folder),
            mend="load it where you trust it, and call `save_pretrained` again",
        )


def load_transformers_model(name: str, *, pretrained: bool = False, image_px: int | None = None) -> LoadedModel:
    """Loads a model: the classifier where the config's ``architectures`` names one, else the bare image tower.

    Args:
        name: A folder, or with ``pretrained`` a name on the hub.
        pretrained: Download from the hub.
        image_px: Side of the images; None takes that of the preprocessor's config, else that of the model's config.
            Where it is not the model's own, the position embedding is resized as the model itself would.

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
    kind = _model_class(transformers, config)
    side = _square(getattr(getattr(config, "vision_config", config), "image_size", None), name)
    with one_line(name, f"{PREPROCESSOR} cannot be read"):
        fed = _input(preprocessor_settings(name, pretrained), str(config.model_type), side, image_px, name)
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
            mend="check `architectures` in config.json",
        )
    if fed.px != side:
        model = _resized(model, fed.px, name)
    state = model.state_dict()
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise DataError("the weights hold NaN or infinite values", where=name, mend="restore the file")
    head = kind.__name__.endswith("ForImageClassification")
    digest = _digest(state, model.config, fed)
    return LoadedModel(model.eval(), fed.mean, fed.std, fed.px, int(config.num_labels) if head else 0, digest, fed.note)


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
            mend="restore the files; without network, download the model elsewhere and give its folder",
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
        f"{named} is no image model of transformers that can be loaded alone",
        where="model",
        mend=f"take one of the families {', '.join(NORMALISATION)}",
    )


def preprocessor_settings(name: str, pretrained: bool) -> dict[str, Any] | None:
    """Returns the contents of the preprocessor's config, None where there is none.

    Where a processor for images and text was saved, it lies within that one's config.
    """
    from transformers.utils import cached_file  # noqa: PLC0415 - slow, see above

    for file, part in ((PROCESSOR, "image_processor"), (PREPROCESSOR, None)):
        found = cached_file(name, file, local_files_only=not pretrained, _raise_exceptions_for_missing_entries=False)
        data = json.loads(Path(found).read_text(encoding="utf-8")) if found else None
        if found and not isinstance(data, dict):
            raise DataError("not a mapping", where=f"{name}/{file}", mend="restore the file")
        if data is not None and (part is None or isinstance(data.get(part), dict)):
            settings: dict[str, Any] = data if part is None else data[part]
            return settings
    return None


def _input(data: dict[str, Any] | None, family: str, side: int, asked: int | None, name: str) -> _Input:
    """Settles how images are fed."""
    mean, std, note = normalisation(data, family, name)
    if data is None:
        return _Input(mean, std, asked or side, note)
    cropped = data.get("do_center_crop", "crop_size" in data) and data.get("crop_size")
    size = data["crop_size"] if cropped else data.get("size") if data.get("do_resize", True) else None
    return _Input(mean, std, asked or (_square(size, f"{name}/{PREPROCESSOR}") if size else side), note)


def normalisation(data: dict[str, Any] | None, family: str, name: str) -> tuple[Channels, Channels, str]:
    """Settles mean and standard deviation.

    Args:
        data: The preprocessor's config, None where there is none.
        family: Model type of the image tower, whose defaults fill what is missing.
        name: The model, for messages.

    Returns:
        Mean, standard deviation, and what of it was assumed; empty if nothing.

    Raises:
        DataError: Pixels are not scaled to [0, 1], or values are missing and the family is not known.
    """
    if data is None:
        if family not in NORMALISATION:
            raise DataError(
                f"how to normalise images for {family!r} is not known",
                where=name,
                mend=f"add a {PREPROCESSOR} with `image_mean` and `image_std`",
            )
        return *NORMALISATION[family], f"normalisation assumed: no {PREPROCESSOR}"
    where = f"{name}/{PREPROCESSOR}"
    if not data.get("do_rescale", True) or abs(float(data.get("rescale_factor", 1 / 255)) * 255 - 1) > 1e-3:
        raise DataError("pixels are not scaled to [0, 1]", where=where, mend="take a model that is fed such pixels")
    if not data.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), ""
    if "image_mean" in data and "image_std" in data:
        return _channels(data["image_mean"], where), _channels(data["image_std"], where), ""
    mean, std, _ = normalisation(None, family, name)
    return mean, std, f"normalisation assumed: {PREPROCESSOR} has none"


def _channels(values: Any, where: str) -> Channels:
    """Reads one number a channel."""
    if not isinstance(values, list) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        raise DataError(f"{values!r} is not three numbers, one a channel", where=where, mend="restore the file")
    return float(values[0]), float(values[1]), float(values[2])


def _square(size: Any, where: str) -> int:
    """Reads the side of a square from a number, a pair, or a mapping with height and width or the shortest edge."""
    if isinstance(size, dict):
        size = [size["shortest_edge"]] if "shortest_edge" in size else [size.get("height"), size.get("width")]
    sides = set(size) if isinstance(size, list | tuple) else {size}
    side = sides.pop()
    if sides or not isinstance(side, int) or side < 1:
        raise DataError(f"image size {size!r} is not a square", where=where, mend="take a model for square images")
    return side


def _resized(model: Any, px: int, name: str) -> Any:
    """Returns the model for images of ``px``, its position embedding interpolated by the model's own method."""
    config = type(model.config).from_dict(model.config.to_dict())
    vision = getattr(config, "vision_config", config)
    patch = _square(vision.patch_size, name)
    if px % patch:
        what, better = f"{px} is not a multiple of the patch size {patch}", max(1, round(px / patch)) * patch
        raise ConfigError(what, where="image_px", mend=f"try {better}")
    state = model.state_dict()
    found = [
        (key, module)
        for prefix, module in model.named_modules()
        for key in (f"{prefix}.position_embeddings", f"{prefix}.position_embedding.weight")
        if hasattr(module, "interpolate_pos_encoding") and key.removeprefix(".") in state
    ]
    if len(found) != 1:
        raise ConfigError(f"the model takes images of {vision.image_size} px only", where="image_px", mend="take these")
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


def _digest(state: dict[str, Tensor], config: Any, fed: _Input) -> str:
    """Returns a hash of all that decides the answers: weights, the config that gives them meaning, and the input."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(f"{key}{tuple(state[key].shape)}".encode())
        digest.update(state[key].contiguous().numpy().tobytes())
    said = {k: v for k, v in config.to_diff_dict().items() if k not in {"transformers_version", "_name_or_path"}}
    digest.update(json.dumps([said, fed.mean, fed.std, fed.px], sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]
