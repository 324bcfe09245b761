"""The judge: decides, by features of its own, whether a reconstruction shows its original.

The victim is no impartial judge of attacks that hold its weights: a picture that shows nothing can be made to have the
victim's features of an original. The judge's scores stand in columns of their own, beside the victim's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import PluginError
from leakgauge.harness.scoring.identification import reid_top1
from leakgauge.harness.suite.registry import create
from leakgauge.harness.suite.schema import Suite


class Judge(ABC):
    """Gives pictures features by which they are recognised. Nothing of the run may teach it.

    ``unscored_reason`` says, where features are NaN for a reason that the judge knows, what that is and how to mend it.
    """

    name: ClassVar[str]
    independent: ClassVar[bool] = True
    """Whether it shares nothing with the victim."""
    unscored_reason: str = ""

    def prepare(self, victim: Victim, device: torch.device) -> None:  # noqa: B027 - optional to override
        """Called before all else with the victim of the run, which an independent judge ignores."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Returns features (B, D) of images (B, 3, H, W) in [0, 1] on any device; NaN means unscored."""

    def described(self) -> dict[str, str]:
        """Returns what run.json says of it beside its name: where its weights come from and their hash, say."""
        return {}


class Judged(NamedTuple):
    """Scores by column name, each (B,) with NaN for unscored; and why one is unscored, where it is."""

    values: dict[str, Tensor]
    reasons: dict[str, str]


class JudgedGallery:
    """A judge before the originals of a run, whose features it computes once.

    Args:
        judge: The judge, prepared.
        originals: (B, 3, H, W) uint8.
        device: Where to compute.
        batch_size: Images at a time.
    """

    def __init__(self, judge: Judge, originals: Tensor, device: torch.device, batch_size: int) -> None:
        self.judge, self._originals, self._device, self._batch_size = judge, originals, device, batch_size

    @classmethod
    def of(cls, suite: Suite, victim: Victim, originals: Tensor, device: torch.device) -> JudgedGallery:
        """Builds the judge that a suite names, before ``originals`` (B, 3, H, W) uint8."""
        judge: Any = create("judges", suite.judge.name, suite.judge.options, where="judge")
        if not isinstance(judge, Judge):
            raise PluginError(f"{type(judge).__name__} is no judge", where="judge", hint="derive it from Judge")
        judge.prepare(victim, device)
        return cls(judge, originals, device, suite.batch_size)

    @cached_property
    def features(self) -> Tensor:
        """(B, D) features of the originals."""
        return self._features(self._originals)

    def scores(self, rebuilt: Tensor) -> Judged:
        """Judges uint8 reconstructions (B, 3, H, W), row i of original i.

        ``judge_reid_top1`` says whether the original is the nearest of all by cosine; ``judge_agreement`` is the
        cosine of the two after the mean of the originals is taken off, 0 if negative: 0 for unrelated pictures.
        """
        found, gallery = self._features(rebuilt), self.features
        if found.shape != gallery.shape:
            raise self._broken(f"features of {tuple(found.shape)} beside {tuple(gallery.shape)}")
        centre = gallery[gallery.isfinite().all(dim=1)].mean(dim=0)
        alike = cosine_similarity(found.double() - centre, gallery.double() - centre, dim=1).clamp(0, 1).float()
        if len(gallery) < 2:  # the mean is the original itself
            alike = torch.full_like(alike, torch.nan)
        values = {"judge_reid_top1": reid_top1(found, gallery), "judge_agreement": alike}
        why = self.judge.unscored_reason or "the judge could not score some images"
        return Judged(values, {name: why for name, own in values.items() if bool(own.isnan().any())})

    def described(self) -> Mapping[str, Any]:
        """Returns what run.json says of the judge."""
        return {"name": self.judge.name, "independent": self.judge.independent, **self.judge.described()}

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        parts = []
        for part in torch.split(images, self._batch_size):
            features = self.judge.features(part.to(self._device).float().contiguous() / 255.0)
            if features.ndim != 2 or len(features) != len(part):
                raise self._broken(f"features of {tuple(features.shape)} for {len(part)} images")
            parts.append(features.detach().float().cpu())
        return torch.cat(parts)

    def _broken(self, what: str) -> PluginError:
        return PluginError(what, where=f"judge {self.judge.name!r}", hint="return (B, D), D always the same")
