"""The pretrained model of a user's images, and how pictures are fed to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image
from torch import Tensor

from leakgauge.benchmarks.tasks.own_images.folder_scoring import Library
from leakgauge.benchmarks.victims.loading.input_settings import Fed, Interpolation, fed
from leakgauge.benchmarks.victims.loading.loaded_model import LoadedModel
from leakgauge.benchmarks.victims.loading.timm_model import load_timm_model
from leakgauge.benchmarks.victims.loading.transformers_model import load_transformers_model
from leakgauge.harness.contracts.reading import Preprocessing
from leakgauge.harness.values.decoding import Colour, centre_square, colour_name


@dataclass(frozen=True)
class FolderModel:
    """A model of timm or transformers; nothing is loaded before it is needed. Arguments: options of ``imagefolder``."""

    library: Library
    model: str
    checkpoint: Path | None
    pretrained: bool
    image_px: int | None
    pos_embed_antialias: bool
    mean: Sequence[float] | None
    std: Sequence[float] | None
    interpolation: Interpolation | None
    crop_share: float | None

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model with its weights."""
        if self.library == "transformers":
            return load_transformers_model(
                self.model, pretrained=self.pretrained, image_px=self.image_px, mean=self.mean, std=self.std
            )
        return load_timm_model(
            self.model,
            self.checkpoint,
            image_px=self.image_px,
            pos_embed_antialias=self.pos_embed_antialias,
            mean=self.mean,
            std=self.std,
        )

    @cached_property
    def fed(self) -> Fed:
        """How pictures become squares."""
        return fed(self.loaded.own, self.interpolation, self.crop_share)

    @property
    def name(self) -> str:
        """The model's name for reports: image size, and what was assumed or stated by option."""
        local = self.library == "transformers" and not self.pretrained
        name = Path(self.model).name if local else self.model
        return ", ".join(part for part in (name, f"{self.loaded.px} px", self.loaded.note) if part)

    def square(self, image: Image.Image) -> Tensor:
        """Returns a picture as the model is shown it, (3, px, px) uint8."""
        return centre_square(image, self.loaded.px, self.fed.interpolation, self.fed.crop_share)

    def preprocessing(self, background: Colour) -> Preprocessing:
        """Returns what run.json says of all that is done to a picture."""
        return Preprocessing(
            self.loaded.px,
            self.loaded.mean,
            self.loaded.std,
            self.fed.crop_share,
            f"{self.fed.interpolation}, antialiased",
            colour_name(background),
            f"{self.loaded.source}; {self.fed.source}",
        )
