"""How images are fed to a pretrained model: stated by option, found beside the checkpoint, or assumed; and which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from leakgauge.harness.suite.options import Positive

Channels = tuple[float, float, float]
MeanOption = Annotated[Sequence[float], Field(min_length=3, max_length=3)]
"""A number a channel, of images in [0, 1], as a suite states it."""
StdOption = Annotated[Sequence[Positive], Field(min_length=3, max_length=3)]
"""A number above 0 a channel, likewise."""
Interpolation = Literal["bicubic", "bilinear", "lanczos", "box", "hamming", "nearest"]
RESAMPLING: dict[int, Interpolation] = {
    **{0: "nearest", 1: "lanczos", 2: "bilinear"},
    **{3: "bicubic", 4: "box", 5: "hamming"},
}
"""PIL's numbers of filters, as preprocessor configs state them."""
OPTION, ASSUMED = "option", "assumed"


class Normalisation(NamedTuple):
    """Mean and standard deviation of images in [0, 1], and where they come from."""

    mean: Channels
    std: Channels
    source: str

    @property
    def assumed(self) -> bool:
        """Whether nothing beside the checkpoint states them."""
        return self.source.startswith(ASSUMED)

    def stated(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> Normalisation:
        """Returns it with what options state in place of what was found."""
        if mean is None and std is None:
            return self
        parts = [f"{name} by {OPTION}" for name, given in (("mean", mean), ("std", std)) if given is not None]
        parts += [f"{name} {self.source}" for name, given in (("mean", mean), ("std", std)) if given is None]
        return Normalisation(
            self.mean if mean is None else channels(mean), self.std if std is None else channels(std), ", ".join(parts)
        )

    @property
    def by_option(self) -> bool:
        """Whether an option states any of it."""
        return f"by {OPTION}" in self.source

    @property
    def said(self) -> str:
        """Where both come from, as a phrase of its own."""
        return self.source if self.by_option else f"mean and std {self.source}"

    @property
    def note(self) -> str:
        """What a victim's name says of it: nothing where a file beside the checkpoint states it."""
        if self.by_option:
            return f"mean {_written(self.mean)}, std {_written(self.std)}, {self.source}"
        return f"normalisation {self.source}" if self.assumed else ""


def channels(values: Sequence[float]) -> Channels:
    """Returns one number a channel as a tuple."""
    return float(values[0]), float(values[1]), float(values[2])


def _written(values: Channels) -> str:
    return " ".join(f"{value:.4g}" for value in values)


@dataclass(frozen=True)
class Fed:
    """How a picture becomes the square that a model takes.

    Args:
        interpolation: Filter by which it is reduced.
        crop_share: Side of the square that is cut out, as a share of the shorter side.
        source: Where the two come from, in words.
    """

    interpolation: Interpolation
    crop_share: float
    source: str


class OwnSettings(NamedTuple):
    """What is stated beside a checkpoint; None where it is not."""

    interpolation: Interpolation | None = None
    crop_share: float | None = None


NOTHING_STATED = OwnSettings()


def fed(own: OwnSettings, interpolation: Interpolation | None, crop_share: float | None) -> Fed:
    """Settles how pictures are fed: by option, else the filter that the checkpoint states, else bicubic; all of it.

    The share that the checkpoint's own evaluation crops is stated, but not taken by itself: its edges are content.
    """
    if interpolation is not None:
        chosen, said = interpolation, f"interpolation by {OPTION}"
    elif own.interpolation is not None:
        chosen, said = own.interpolation, "interpolation as the checkpoint states"
    else:
        chosen, said = "bicubic", f"interpolation {ASSUMED}"
    if crop_share is not None:
        return Fed(chosen, crop_share, f"{said}, crop share by {OPTION}")
    whole = f"crop share {ASSUMED}"
    if own.crop_share is not None and own.crop_share != 1:
        whole += f" (the checkpoint's own evaluation takes {own.crop_share:.3g})"
    return Fed(chosen, 1.0, f"{said}, {whole}")


def own_of_preprocessor(data: Mapping[str, Any] | None) -> OwnSettings:
    """Reads the preprocessor's config of transformers."""
    if data is None:
        return NOTHING_STATED
    filter_ = data.get("resample")
    interpolation = RESAMPLING.get(filter_) if isinstance(filter_, int) and data.get("do_resize", True) else None
    size, crop = data.get("size"), data.get("crop_size")
    cut = data.get("do_center_crop", crop is not None) and data.get("do_resize", True)
    shorter = size.get("shortest_edge") if isinstance(size, Mapping) else size
    side = crop.get("height") if isinstance(crop, Mapping) else crop
    known = bool(cut) and isinstance(shorter, int) and isinstance(side, int) and 0 < side <= shorter
    return OwnSettings(interpolation, side / shorter if known else None)  # type: ignore[operator]
