"""Scores a classifier's answers: against labels, or against what the model itself answers without a defense."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import DataError
from leakgauge.harness.values.images import ImageSet

BATCH = 64


class Answers:
    """What a task compares a model's answers with.

    Args:
        victim: Returns the model.
        calibration: Returns the calibration split.
        classes: Classes of the model's head; 0 without one.
        labelled: Whether labels decide; else agreement with the undefended model.
        where: The data, for errors.
    """

    def __init__(
        self,
        victim: Callable[[], Victim],
        calibration: Callable[[], ImageSet],
        classes: int,
        labelled: bool,
        where: str,
    ) -> None:
        self._victim, self._calibration, self._classes = victim, calibration, classes
        self.labelled, self._where = labelled, where
        self._outputs: dict[str, Tensor] = {}

    def target(self, images: ImageSet) -> Tensor:
        """Returns class numbers (B,), or for agreement the undefended model's outputs (B, C)."""
        if self.labelled:
            if images.labels is None:
                raise DataError("the images carry no labels", where=self._where, hint="take them from `split`")
            return images.labels
        new = [i for i, image_id in enumerate(images.ids) if image_id not in self._outputs]
        with torch.no_grad():
            for batch in images.select(new).batches(BATCH):
                outputs = self._victim().predict(batch.images().to(self._victim().device)).cpu()
                self._outputs.update(zip(batch.ids, outputs, strict=True))
        return torch.stack([self._outputs[image_id] for image_id in images.ids])

    def quality(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns (B,) 1 where the top class is right, else 0; without a head the centred cosine, 0 if negative."""
        output, target = output.detach().cpu(), target.cpu()
        if self.labelled:
            return (output.argmax(dim=1) == target).float()
        if self._classes:
            return (output.argmax(dim=1) == target.argmax(dim=1)).float()
        similarity = functional.cosine_similarity(output.double() - self._centre, target.double() - self._centre, dim=1)
        return similarity.clamp(0, 1).float()

    @cached_property
    def _centre(self) -> Tensor:
        """(C,) mean of the undefended model's features, over the calibration split.

        Features of different images share a large common part: without subtracting it, the cosine of two unrelated
        images can exceed .8.
        """
        return self.target(self._calibration()).double().mean(dim=0)

    @property
    def agreement_name(self) -> str:
        """What agreement is called: of classes, or of features where there is no head."""
        if self._classes:
            return "top-1 agreement with the undefended model"
        return "centred feature cosine to the undefended model"
