"""Loads a LLaVA of transformers, 1.5 or NeXT, from a folder that ``save_pretrained`` wrote, or from the hub.

As in ``transformers_model``, only safetensors are read, no code of the folder or hub is run, and transformers is
imported where it is first needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from leakgauge.benchmarks.victims.loading.input_settings import (
    Normalisation,
    OwnSettings,
    channels,
    own_of_preprocessor,
)
from leakgauge.benchmarks.victims.loading.preprocessor import normalisation, preprocessor_settings
from leakgauge.benchmarks.victims.loading.transformers_model import (
    WEIGHTS,
    check_model_folder,
    one_line,
    quiet,
)
from leakgauge.harness.contracts.vision_language import IMAGE, VisionLanguageVictim, check_asking
from leakgauge.harness.errors import ConfigError, DataError, suggest

Dtype = Literal["float32", "bfloat16", "float16"]
CLASSES = {"llava": "LlavaForConditionalGeneration", "llava_next": "LlavaNextForConditionalGeneration"}
"""The class to load by ``model_type``."""

LLAVA_PROMPT = f"USER: {IMAGE}\n{{question}} ASSISTANT:"
"""Model card of llava-hf/llava-1.5-7b-hf."""
MISTRAL_PROMPT = f"[INST] {IMAGE}\n{{question}} [/INST]"
"""Model card of llava-hf/llava-v1.6-mistral-7b-hf."""
VICUNA_PROMPT = (
    "A chat between a curious human and an artificial intelligence assistant. "
    f"The assistant gives helpful, detailed, and polite answers to the human's questions. {LLAVA_PROMPT}"
)
"""Model card of llava-hf/llava-v1.6-vicuna-7b-hf."""
VICUNA_TOKENS = 33_000
"""Vicuna has the 32,000 tokens of Llama 2 and a few more; later models of Llama's layout, with other chat forms, have
twice as many or more."""

_TEXT_FILES = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "generation_config.json"),
)
"""Files beside the config that decide answers, where there are any."""


def check_llava_options(
    name: str, *, pretrained: bool, dtype: str, device_map: Any, prompt: str | None, max_new_tokens: int
) -> None:
    """Checks what can be checked without loading anything.

    Args:
        name: A folder, or with ``pretrained`` a name on the hub.
        pretrained: Whether it is a name on the hub.
        dtype: Number format of the weights.
        device_map: What ``from_pretrained`` takes, or None.
        prompt: Text given to the model, or None.
        max_new_tokens: Longest answer in tokens.

    Raises:
        ConfigError: The options cannot be carried out.
        DataError: The folder lacks files.
    """
    check_asking(LLAVA_PROMPT if prompt is None else prompt, max_new_tokens)
    if dtype not in get_args(Dtype):
        raise ConfigError(f"unknown {dtype!r}", where="dtype", hint=suggest(str(dtype), [*get_args(Dtype)]))
    if device_map is not None and importlib.util.find_spec("accelerate") is None:
        raise ConfigError(
            "spreading a model over devices needs accelerate, which is not installed",
            where="device_map",
            hint="pip install accelerate, or leave `device_map` out",
        )
    if not pretrained:
        check_model_folder(Path(name))
    elif Path(name).exists():
        what = f"{name!r} is a local folder, but `pretrained: true` asks for a name on the hub"
        raise ConfigError(what, where="pretrained", hint="leave it out to load the folder")


def llava_side(name: str, *, pretrained: bool = False, image_px: int | None = None) -> int:
    """Returns the side in pixels of the square images that a model is fed; only its config is read.

    LLaVA takes the side of its image tower. LLaVA-NeXT cuts images of any side into tiles: ``image_px``, or twice the
    side of its tower.

    Args:
        name: A folder, or with ``pretrained`` a name on the hub.
        pretrained: Whether it is a name on the hub.
        image_px: Side asked for, or None.

    Raises:
        ConfigError: The model is no LLaVA, or takes another side than ``image_px``.
        DataError: The config cannot be read.
    """
    return _side(_config(name, pretrained), image_px)


def load_llava(
    name: str,
    *,
    pretrained: bool = False,
    prompt: str | None = None,
    max_new_tokens: int = 16,
    dtype: str = "float32",
    device_map: Any = None,
    image_px: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> VisionLanguageVictim:
    """Loads a LLaVA or LLaVA-NeXT with its tokenizer and the normalisation of its image processor.

    Args:
        name: A folder, or with ``pretrained`` a name on the hub.
        pretrained: Download from the hub.
        prompt: Text given to the model, with ``<image>`` and ``{question}``; None takes that of the model's card.
        max_new_tokens: Longest answer in tokens.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device_map: Handed to ``from_pretrained``; needs accelerate. None loads to the CPU.
        image_px: Side of the images, for LLaVA-NeXT; see ``llava_side``.
        mean: Per-channel mean, of images in [0, 1]; None takes that of the image processor, else of the tower's family.
        std: Per-channel deviation, likewise.

    Returns:
        The victim. Its ``weights_hash`` is over weights, config, tokenizer, normalisation, dtype, prompt and length of
        the answers.

    Raises:
        ConfigError: The options do not fit, or the model is no LLaVA.
        DataError: The files are missing, corrupt or contradict one another.
    """
    asking: dict[str, Any] = {"prompt": prompt, "max_new_tokens": max_new_tokens}
    check_llava_options(name, pretrained=pretrained, dtype=dtype, device_map=device_map, **asking)
    config = _config(name, pretrained)
    side = _side(config, image_px)
    prompt = _default_prompt(config) if prompt is None else prompt
    with one_line(name, "the image processor's config cannot be read"):
        fed = llava_normalisation(name, config, pretrained, mean, std)
    tokenizer = _tokenizer(name, pretrained, config)
    model = _model(name, pretrained, config, dtype, device_map)
    said = {k: v for k, v in config.to_diff_dict().items() if k not in {"transformers_version", "_name_or_path"}}
    decides = [said, fed.mean, fed.std, side, dtype, prompt, max_new_tokens]
    shown = name if pretrained else Path(name).absolute().name
    return VisionLanguageVictim(
        model,
        fed.mean,
        fed.std,
        _digest(name, pretrained, json.dumps(decides, sort_keys=True, default=str)),
        ", ".join(part for part in (shown, f"{side} px", "" if dtype == "float32" else dtype, fed.note) if part),
        tokenizer=tokenizer,
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        image_px=side,
    )


def llava_normalisation(
    name: str, config: Any, pretrained: bool, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Normalisation:
    """Settles mean and deviation: by option, else from the image processor's config, else from the tower's family."""
    stated = None if mean is None or std is None else Normalisation(channels(mean), channels(std), "")
    family = str(config.vision_config.model_type)
    return normalisation(preprocessor_settings(name, pretrained), family, name, stated).stated(mean, std)


def llava_input(
    name: str, *, pretrained: bool, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Normalisation, OwnSettings]:
    """Returns how a model is fed, of which only small files are read."""
    with one_line(name, "the image processor's config cannot be read"):
        found = llava_normalisation(name, _config(name, pretrained), pretrained, mean, std)
        return found, own_of_preprocessor(preprocessor_settings(name, pretrained))


def _source(pretrained: bool) -> dict[str, Any]:
    return {"local_files_only": not pretrained, "trust_remote_code": False}


def _config(name: str, pretrained: bool) -> Any:
    """Reads the config; raises ConfigError where it is not that of a LLaVA."""
    if not pretrained:
        check_model_folder(Path(name))
    import transformers  # noqa: PLC0415 - slow, see above

    with one_line(name, "the config cannot be read"):
        config = transformers.AutoConfig.from_pretrained(name, **_source(pretrained))
    if config.model_type not in CLASSES:
        raise ConfigError(
            f"{config.model_type!r} is no LLaVA", where=f"model {name!r}", hint=f"take one of {', '.join(CLASSES)}"
        )
    return config


def _side(config: Any, image_px: int | None) -> int:
    own = int(config.vision_config.image_size)
    if config.model_type == "llava_next":
        return image_px or 2 * own
    if image_px not in {None, own}:
        what = f"the model takes images of {own} px, not {image_px}"
        raise ConfigError(what, where="image_px", hint="leave it out, or take a LLaVA-NeXT")
    return own


def _default_prompt(config: Any) -> str:
    """Returns the prompt of the model's card; raises ConfigError where the language model leaves it open."""
    if config.model_type == "llava":
        return LLAVA_PROMPT
    family = str(config.text_config.model_type)
    if family == "mistral":
        return MISTRAL_PROMPT
    if family == "llama" and config.text_config.vocab_size <= VICUNA_TOKENS:
        return VICUNA_PROMPT
    raise ConfigError(
        f"the chat form of this {family!r} is not known", where="prompt", hint="set `prompt` as its model card says"
    )


def _tokenizer(name: str, pretrained: bool, config: Any) -> Any:
    """Loads the tokenizer; raises DataError where it is not the model's own."""
    import transformers  # noqa: PLC0415 - slow, see above

    with one_line(name, "the tokenizer cannot be read"), quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **_source(pretrained))
        vocabulary = tokenizer.get_vocab()
    hint = "put the model's own tokenizer files into the folder"
    if vocabulary.get(IMAGE) != config.image_token_id:
        raise DataError(
            f"{IMAGE} is token {vocabulary.get(IMAGE)} of the tokenizer, but {config.image_token_id} of the model",
            where=f"model {name!r}",
            hint=hint,
        )
    if max(vocabulary.values()) >= config.text_config.vocab_size:
        what = f"the tokenizer has {len(vocabulary)} tokens, the model {config.text_config.vocab_size}"
        raise DataError(what, where=f"model {name!r}", hint=hint)
    return tokenizer


def _model(name: str, pretrained: bool, config: Any, dtype: str, device_map: Any) -> Any:
    """Loads the network in evaluation mode, and checks that the files held all of it."""
    import transformers  # noqa: PLC0415 - slow, see above

    kind = getattr(transformers, CLASSES[config.model_type])
    options: dict[str, Any] = {"use_safetensors": True, "dtype": getattr(torch, dtype), "output_loading_info": True}
    if device_map is not None:
        options["device_map"] = device_map
    with one_line(name, "the weights cannot be loaded"), quiet():
        model, info = kind.from_pretrained(name, **_source(pretrained), **options)
    missing = sorted(info["missing_keys"])
    if missing:
        raise DataError(
            f"the weights do not fit {kind.__name__}: {missing[0]!r} is missing",
            where=name,
            hint="restore the files, or check `model_type` in config.json",
        )
    # Weights that accelerate put aside on disk are not here to be looked at.
    held = (tensor for tensor in model.state_dict().values() if not tensor.is_meta)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in held):
        hint = "restore the file" + (", or take `dtype: bfloat16`" if dtype == "float16" else "")
        raise DataError("the weights hold NaN or infinite values", where=name, hint=hint)
    return model.eval().requires_grad_(False)


def _digest(name: str, pretrained: bool, decides: str) -> str:
    """Returns a hash of the weight files' bytes, the tokenizer's and what else decides the answers.

    Files are hashed, not tensors: a model may be spread over devices, and a hub name hashes as its folder does.
    """
    digest = hashlib.sha256(decides.encode())
    with one_line(name, "the files cannot be read"):
        for path in _files(name, pretrained):
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _files(name: str, pretrained: bool) -> Iterator[Path]:
    """Yields the weight files, then the text files that are there."""
    from transformers.utils import cached_file  # noqa: PLC0415 - slow, see above

    options: dict[str, Any] = {"local_files_only": not pretrained, "_raise_exceptions_for_missing_entries": False}
    single, index = (cached_file(name, file, **options) for file in WEIGHTS)
    if single:
        yield Path(single)
    elif index:
        shards = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()
        for shard in sorted(set(shards)):
            yield Path(cached_file(name, shard, local_files_only=not pretrained))
    for file in _TEXT_FILES:
        found = cached_file(name, file, **options)
        if found:
            yield Path(found)
