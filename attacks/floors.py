"""Floor attacks: guesses that rebuild nothing specific. All leakage is counted above the best of them."""

from __future__ import annotations

import torch
from torch import Tensor

from leakgauge.harness.contracts.attack import Attack, AttackerView
from leakgauge.harness.contracts.declarations import Knowledge
from leakgauge.harness.errors import PluginError
from leakgauge.harness.suite.options import Count
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams


def mean_image(images: ImageSet, rows: Tensor | None = None) -> Tensor:
    """Returns the mean (3, H, W) in [0, 1] of the images, or of those at ``rows``."""
    pixels = images.pixels if rows is None else images.pixels[rows]
    return pixels.double().mean(dim=0).float() / 255.0


class MeanImageFloor(Attack):
    """Answers with the mean auxiliary image, whatever was observed: the best constant guess under squared error."""

    name = "floor_mean"
    training = "closed_form"
    layout = "needs none"
    floor = True

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Averages the auxiliary images."""
        self._image = mean_image(auxiliary)
        return None

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Repeats the mean image."""
        return self._image.expand(len(observations), -1, -1, -1)


class ClassMeanFloor(Attack):
    """Answers with the mean auxiliary image of the class that the server predicts for the observed payload."""

    name = "floor_class_mean"
    training = "closed_form"
    layout = "needs none"
    knowledge = Knowledge(victim="query")
    floor = True

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Averages the auxiliary images by label, or by the victim's prediction where they carry none."""
        self._images: dict[int, Tensor] = {}
        labels = auxiliary.labels if auxiliary.labels is not None else self._predicted(view, auxiliary)
        self._default = mean_image(auxiliary)
        for label in torch.unique(labels).tolist():
            self._images[int(label)] = mean_image(auxiliary, (labels == label).nonzero().squeeze(1))
        return None

    @staticmethod
    def _predicted(view: AttackerView, auxiliary: ImageSet) -> Tensor:
        answers = [view.predict(batch.images().to(view.device)) for batch in auxiliary.batches(64)]
        return torch.cat([answer.argmax(dim=1).cpu() for answer in answers])

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Looks up the predicted class; a class without auxiliary images gets the mean of all."""
        if observations.output is None:
            raise PluginError("the server's answers were not observed", where=f"attack {self.name!r}")
        if observations.output.ndim != 2:
            raise PluginError(
                "the server's answers are no vectors of classes",
                where=f"attack {self.name!r}",
                hint="leave this floor out; floor_mean and floor_nearest need no classes",
            )
        labels = observations.output.argmax(dim=1).tolist()
        return torch.stack([self._images.get(int(label), self._default) for label in labels])


class NearestImageFloor(Attack):
    """Answers with the auxiliary image whose tokens are nearest in Chamfer distance: retrieval without inversion.

    Args:
        candidates: Auxiliary images with the nearest mean token whose Chamfer distance is computed.
    """

    name = "floor_nearest"
    training = "closed_form"
    layout = "needs none"
    floor = True

    def __init__(self, candidates: Count = 16) -> None:
        self._candidates = candidates

    def fit(self, view: AttackerView, auxiliary: ImageSet, rng: Streams) -> LearningCurve | None:
        """Keeps the auxiliary images and their tokens."""
        self._auxiliary = auxiliary
        self._known = view.observe(auxiliary)
        self._scale = self._known.tokens.std(dim=0).clamp_min(1e-6)
        self._means = self._summaries(self._known)
        return None

    def _summaries(self, observations: Observation) -> Tensor:
        """Returns the mean token of every image (B, D), in units of standard deviations."""
        batch = observations.as_batch()
        sums = batch.tokens.new_zeros(len(batch), batch.tokens.shape[1]).index_add_(0, batch.image_index, batch.tokens)
        return sums / batch.lengths[:, None] / self._scale

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Returns the nearest auxiliary image of every observation."""
        means = self._summaries(observations)
        nearest = []
        for i in range(len(observations)):
            shortlist = (
                (self._means - means[i])
                .square()
                .sum(dim=1)
                .topk(min(self._candidates, len(self._means)), largest=False)
            )
            own = observations.select([i]).tokens / self._scale
            others, mask = self._known.select(shortlist.indices).as_batch().padded()
            distances = torch.cdist(own.expand(len(others), -1, -1), others / self._scale)
            forward = distances.masked_fill(~mask[:, None, :], float("inf")).amin(dim=2).mean(dim=1)
            backward = (distances.amin(dim=1) * mask).sum(dim=1) / mask.sum(dim=1)
            nearest.append(int(shortlist.indices[(forward + backward).argmin()]))
        return self._auxiliary.select(nearest).images()
