"""Reads an attribute off the length of the payload: tests the side channel of a variable token count."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor

from leakgauge.harness.contracts.attack import AttackerView
from leakgauge.harness.contracts.probing import AttributeProbe
from leakgauge.harness.suite.options import Count, Positive
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

SIZE_EDGES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Lower edges of the bins of the size histogram, in source patches."""


def metadata(observations: Observation) -> NDArray[np.float64]:
    """Returns (B, F): the token count, and where sizes are seen their histogram, mean square and maximum."""
    lengths = observations.lengths
    columns = [lengths.double()[:, None]]
    if observations.sizes is not None:
        images = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        sizes = observations.sizes.double()
        bins = torch.bucketize(observations.sizes, torch.tensor(SIZE_EDGES), right=True) - 1
        histogram = torch.zeros(len(lengths), len(SIZE_EDGES), dtype=torch.float64)
        histogram.index_put_((images, bins.clamp_min(0)), torch.ones_like(sizes), accumulate=True)
        spread = torch.zeros(len(lengths), dtype=torch.float64).index_add_(0, images, sizes.square()) / lengths
        largest = torch.zeros(len(lengths), dtype=torch.float64).scatter_reduce_(0, images, sizes, "amax")
        columns += [histogram, spread[:, None], largest[:, None]]
    return torch.cat(columns, dim=1).numpy()


class MetadataOnly(AttributeProbe):
    """Gradient-boosted trees on the token count and, where sizes are seen, their histogram; no token value is read.

    An undefended payload has one length, so there is nothing to prove there.

    Args:
        attribute: Which of the task's attributes, or ``label``.
        rounds: Boosting rounds, each with one tree a class.
        leaves: Most leaves of a tree.
        learning_rate: Shrinkage of a tree.
    """

    name = "metadata_only"
    training = "closed_form"
    layout = "needs none"
    proves_on_baseline = False

    def __init__(
        self,
        attribute: str = "label",
        rounds: Count = 40,
        leaves: Annotated[int, Field(ge=2)] = 8,
        learning_rate: Positive = 0.1,
    ) -> None:
        self.attribute = attribute
        self._rounds, self._leaves, self._rate = rounds, leaves, learning_rate

    def fit(
        self, view: AttackerView, auxiliary: ImageSet, answers: Tensor, classes: int, rng: Streams
    ) -> LearningCurve | None:
        """Grows the trees."""
        self._classes = classes
        self._trees = HistGradientBoostingClassifier(
            learning_rate=self._rate,
            max_iter=self._rounds,
            max_leaf_nodes=self._leaves,
            min_samples_leaf=20,
            early_stopping=False,
            random_state=rng.child("trees").entropy() % 2**32,
        )
        # One thread a worker, as elsewhere in a run; the order of summation then is fixed, too.
        with threadpool_limits(1):
            self._trees.fit(metadata(view.observe(auxiliary)), answers.numpy())
        return None

    def predict(self, observations: Observation, rng: Streams) -> Tensor:
        """Returns probabilities (B, classes); classes without auxiliary images get zero."""
        with threadpool_limits(1):
            known = self._trees.predict_proba(metadata(observations))
        scores = torch.zeros(len(observations), self._classes)
        if len(self._trees.classes_) == 1:
            # Of one class alone the trees return two columns.
            scores[:, int(self._trees.classes_[0])] = 1.0
            return scores
        scores[:, torch.as_tensor(self._trees.classes_, dtype=torch.long)] = torch.from_numpy(known).float()
        return scores
