"""Builds a timm model with weights from a local file or from timm's own download."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import timm
import torch
from safetensors.torch import load_file
from timm.data import resolve_model_data_config
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from leakgauge.benchmarks.victims.loading.input_settings import (
    ASSUMED,
    Interpolation,
    Normalisation,
    OwnSettings,
    channels,
)
from leakgauge.benchmarks.victims.loading.loaded_model import LoadedModel
from leakgauge.harness.errors import ConfigError, DataError

State = dict[str, Tensor]
CONFIG = "config.json"
"""Beside a checkpoint, as timm and its hub write it: ``pretrained_cfg`` holds mean, deviation, filter and crop."""
MODULES = ("vision_transformer", "deit")
"""The files of timm that define the models that can be split."""
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")


def usable_models() -> dict[str, str]:
    """Returns how to name each model of timm that can be split; by their names' tags they have several weights."""
    names = {model for module in MODULES for model in timm.list_models(module=module)}
    return {name: f"task: {{name: imagefolder, path: FOLDER, model: {name}, pretrained: true}}" for name in names}


def check_model_name(name: str) -> None:
    """Raises ConfigError where timm knows no model of this name, or one that no adapter runs."""
    known = timm.is_model(name)
    if known and timm.models.is_model_in_modules(name, MODULES):
        return
    close = difflib.get_close_matches(name.partition(".")[0], sorted(usable_models()), n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}?" if close else "`leakgauge list models` lists them"
    if known:
        hint = "take a plain vision transformer: ViT, DeiT, DINO, DINOv2, MAE, or a CLIP or SigLIP tower"
        raise ConfigError(f"{name!r} is no model that can be split", where="model", hint=hint)
    raise ConfigError(f"timm knows no model {name!r}", where="model", hint=hint)


def load_timm_model(
    name: str,
    checkpoint: Path | None,
    *,
    image_px: int | None = None,
    pos_embed_antialias: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> LoadedModel:
    """Builds a model and loads its weights.

    Args:
        name: The timm name.
        checkpoint: A .safetensors file, or a torch file, which is read as plain tensors only. None downloads the
            weights that timm names.
        image_px: Side of the images; None takes the model's own.
        pos_embed_antialias: Whether the position embedding is antialiased where it must be resized.
        mean: Per-channel mean that the model was trained with, of images in [0, 1]; None takes that of the
            ``config.json`` beside the checkpoint, else that of the model's name.
        std: Per-channel deviation, likewise.

    Raises:
        ConfigError: The name or the image size does not fit.
        DataError: The weights are missing, corrupt or of another architecture.
    """
    check_model_name(name)
    where = str(checkpoint) if checkpoint else f"pretrained weights of {name!r}"
    state = _read(checkpoint) if checkpoint else _download(name)
    digest = _file_hash(checkpoint) if checkpoint else _state_hash(state)
    model = _build(name, _classes(name, state), image_px, averages="fc_norm.weight" in state)
    if _resize_pos_embed(state, model, pos_embed_antialias):
        # The file alone no longer says what the weights are.
        digest = hashlib.sha256(f"{digest}|{pos_embed_antialias}".encode()).hexdigest()
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(
            f"the weights do not fit {name!r}: {_mismatch(model, state)}",
            where=where,
            hint="name the model that they were trained for",
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise DataError("the weights hold NaN or infinite values", where=where, hint="restore the file")
    config = resolve_model_data_config(model)
    found, own = _settings(config, checkpoint, name)
    fed = found.stated(mean, std)
    if (fed.mean, fed.std) != (tuple(config["mean"]), tuple(config["std"])):
        digest = hashlib.sha256(f"{digest}|{fed.mean}|{fed.std}".encode()).hexdigest()
    px = int(getattr(getattr(model, "patch_embed", None), "img_size", config["input_size"][1:])[0])
    classes = int(model.num_classes)
    return LoadedModel(model.eval(), fed.mean, fed.std, px, classes, digest[:16], fed.note, fed.said, own)


def _classes(name: str, state: State) -> int:
    """Returns the classes of the head that the weights hold, 0 without one; of several heads they are the same."""
    named = timm.models.get_pretrained_cfg_value(name, "classifier")
    heads = [named] if isinstance(named, str) else list(named or ())
    found = {len(state[f"{head}.weight"]) for head in heads if f"{head}.weight" in state}
    return max(found, default=0)


def _settings(config: dict[str, Any], checkpoint: Path | None, name: str) -> tuple[Normalisation, OwnSettings]:
    """Reads how images are fed from the ``config.json`` beside a checkpoint, as timm writes it, else from the name."""
    beside = _beside(checkpoint) if checkpoint else None
    known = config if beside is None else {**config, **beside}
    if beside is not None and {"mean", "std"} <= beside.keys():
        source = f"from {CONFIG}"
    elif checkpoint is None:
        source = f"from timm's settings of {name}"
    else:
        source = f"{ASSUMED} from the name {name}"
    filter_, share = known.get("interpolation"), known.get("crop_pct")
    own = OwnSettings(
        filter_ if filter_ in get_args(Interpolation) else None,
        float(share) if isinstance(share, int | float) and 0 < share <= 1 else None,
    )
    return Normalisation(channels(known["mean"]), channels(known["std"]), source), own


def _beside(checkpoint: Path) -> dict[str, Any] | None:
    """Returns the settings in the ``config.json`` beside a checkpoint; None where there are none.

    Raises:
        DataError: It is broken, or states no three numbers above.
    """
    path = checkpoint.parent / CONFIG
    if not path.is_file():
        return None
    hint = "restore it, or move the checkpoint to a folder of its own"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("it cannot be read as JSON", where=str(path), hint=hint) from error
    settings = data.get("pretrained_cfg", data) if isinstance(data, dict) else None
    if not isinstance(settings, dict):
        raise DataError("it is no mapping of settings", where=str(path), hint=hint)
    for key in ("mean", "std"):
        values = settings.get(key)
        numbers = isinstance(values, list) and all(type(v) in (int, float) and math.isfinite(v) for v in values)
        if values is not None and (not numbers or len(values) != 3 or (key == "std" and min(values) <= 0)):
            raise DataError(f"{key!r} is not three numbers, one a channel", where=str(path), hint=hint)
    return {key: value for key, value in settings.items() if value is not None}


def _build(name: str, classes: int, image_px: int | None, *, averages: bool) -> Any:
    """Builds the untrained model; refuses an image size that its patches do not tile.

    Weights with a norm behind the pooling are of a model that averages its patches, as fine-tuned MAEs do.
    """
    options: dict[str, Any] = {} if image_px is None else {"img_size": image_px}
    if averages and timm.models.get_pretrained_cfg_value(name, "classifier") == "head":
        options["global_pool"] = "avg"
    try:
        model = timm.create_model(name, pretrained=False, num_classes=classes, **options)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{name!r} cannot take images of {image_px} px: {error}",
            where="image_px",
            hint="leave it out, or name another model",
        ) from error
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if image_px is not None and patch and (image_px % patch[0] or image_px % patch[1]):
        raise ConfigError(
            f"{image_px} is not a multiple of the patch size {patch[0]}",
            where="image_px",
            hint=f"try {max(1, round(image_px / patch[0])) * patch[0]}",
        )
    return model


def _read(path: Path) -> State:
    """Reads a checkpoint as tensors by name, in float32; never runs code that it holds."""
    hint = "give a .safetensors file, or a torch file that holds tensors only"
    try:
        if path.suffix == ".safetensors":
            data: Any = load_file(path)
        else:
            data = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError("no such checkpoint", where=str(path), hint="check `checkpoint`") from error
    except Exception as error:  # unpickling raises many kinds for broken data
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise DataError(f"the checkpoint cannot be read: {first_line}", where=str(path), hint=hint) from error
    for key in _WRAPPERS:
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
            break
    if not isinstance(data, dict) or not data or not all(isinstance(value, Tensor) for value in data.values()):
        raise DataError("the checkpoint is not a mapping of names to tensors", where=str(path), hint=hint)
    return {str(key).removeprefix("module."): _as_float32(value) for key, value in data.items()}


def _download(name: str) -> State:
    """Returns the weights that timm names, at their own image size."""
    try:
        state = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # hubs, sockets and file systems raise many kinds
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise DataError(
            f"the weights cannot be downloaded: {first_line}",
            where=f"pretrained weights of {name!r}",
            hint="without network, download them elsewhere and give `checkpoint` instead of `pretrained`",
        ) from error
    return {key: _as_float32(value) for key, value in state.items()}


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _state_hash(state: State) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name}{tuple(state[name].shape)}".encode())
        digest.update(state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _resize_pos_embed(state: State, model: Any, antialias: bool) -> bool:
    """Fits the position embedding in ``state`` to the model's grid; returns whether it changed."""
    old, new = state.get("pos_embed"), getattr(model, "pos_embed", None)
    if old is None or new is None or old.shape == new.shape or old.ndim != 3:
        return False
    prefix = 0 if getattr(model, "no_embed_class", False) else int(model.num_prefix_tokens)
    places = old.shape[1] - prefix
    if places < 1 or math.isqrt(places) ** 2 != places:
        return False  # loading refuses it
    state["pos_embed"] = resample_abs_pos_embed(
        old, list(model.patch_embed.grid_size), num_prefix_tokens=prefix, antialias=antialias
    )
    return True


def _mismatch(model: nn.Module, state: State) -> str:
    """Names the first tensor that is missing, unknown or of another shape."""
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in state:
            return f"{name!r} is missing"
        if state[name].shape != tensor.shape:
            return f"{name!r} is {tuple(state[name].shape)} where {tuple(tensor.shape)} is needed"
    unknown = [name for name in state if name not in expected]
    return f"{unknown[0]!r} is unknown" if unknown else "see the traceback"
