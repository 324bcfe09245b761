"""Checks the options that say which pretrained model judges a user's images, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from leakgauge.benchmarks.victims.loading.timm_model import check_model_name
from leakgauge.benchmarks.victims.loading.transformers_model import check_model_folder
from leakgauge.harness.errors import ConfigError


def check_timm_options(model: str, checkpoint: str | None, *, pretrained: bool) -> None:
    """Raises ConfigError where the options do not say which weights of which timm model to load."""
    check_model_name(model)
    if bool(checkpoint) == pretrained:
        what = "both `checkpoint` and `pretrained` are set" if pretrained else "the model has no weights"
        raise ConfigError(what, where="checkpoint", hint="set either `checkpoint: FILE` or `pretrained: true`")


def check_transformers_options(model: str, given: Mapping[str, bool], *, pretrained: bool, probe: bool) -> str:
    """Returns the folder or hub name of a transformers model.

    Args:
        model: The option of the task.
        given: For each option of timm models whether it is given.
        pretrained: Whether the model is one of the hub.
        probe: Whether a linear probe is asked for.

    Raises:
        ConfigError: The options do not say which model to load.
    """
    for name, odd in given.items():
        if odd:
            raise ConfigError("this is for timm models", where=name, hint="leave it out, or set `library: timm`")
    if probe:
        what = "a linear probe needs a timm model"
        raise ConfigError(what, where="quality", hint="take `head` or `agreement`, or set `library: timm`")
    if not pretrained:
        model = str(Path(model).expanduser())
        check_model_folder(Path(model))
    elif Path(model).exists():
        what = f"{model!r} is a local folder, but `pretrained: true` asks for a name on the hub"
        raise ConfigError(what, where="pretrained", hint="leave it out to load the folder")
    return model
