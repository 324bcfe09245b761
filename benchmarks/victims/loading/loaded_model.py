"""What the loaders of pretrained models return."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from leakgauge.benchmarks.victims.loading.input_settings import NOTHING_STATED, OwnSettings


@dataclass(frozen=True)
class LoadedModel:
    """A pretrained model in evaluation mode on the CPU.

    Args:
        model: The network; its head has the classes of its weights, or none where they hold none.
        mean: Per-channel mean that normalises images in [0, 1].
        std: Per-channel standard deviation, likewise.
        px: Side of the images that it takes.
        classes: Classes of its head, 0 without one.
        weights_hash: SHA-256 of the weights, first 16 hex digits.
        note: What was assumed or stated by option, for the victim's name; empty if nothing.
        source: Where mean and deviation come from, in words.
        own: What is stated beside the checkpoint of how pictures are fed.
    """

    model: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    px: int
    classes: int
    weights_hash: str
    note: str = ""
    source: str = ""
    own: OwnSettings = NOTHING_STATED
