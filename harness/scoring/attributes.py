"""Attribute inference: how well scores tell classes apart, and how well one guesses without looking at a payload.

The area under the ROC curve is the chance that an image of a class scores higher for it than an image of another one,
ties counting half: Mann and Whitney's U over its largest value (Hanley and McNeil, Radiology 1982).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from leakgauge.harness.scoring.statistics import Interval, cluster_interval
from leakgauge.harness.values.seeding import Streams

Values = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]


def macro_auc(scores: Tensor, answers: Tensor) -> float:
    """Returns the area under the ROC curve of each class against the rest, averaged over classes.

    Args:
        scores: (B, classes) finite scores.
        answers: (B,) int64 true classes; one that has no column counts as the rest of every other.

    Returns:
        A mean in [0, 1] over the classes that some of the images belong to, but not all; NaN where there is none.
    """
    values, true = _checked(scores, answers)
    areas = []
    for c in _scored_classes(values, true):
        own = true == c
        count = int(own.sum())
        wins = _midranks(values[:, c])[own].sum() - count * (count + 1) / 2
        areas.append(wins / (count * (len(true) - count)))
    return float(np.mean(areas)) if areas else math.nan


def auc_interval(
    scores: Tensor, answers: Tensor, groups: Tensor | None, streams: Streams, resamples: int = 2000
) -> Interval:
    """Returns ``macro_auc`` with a cluster-bootstrap interval; draws and percentiles are those of ``mean_interval``.

    A class that a resample lacks is left out of that resample's mean.

    Args:
        scores: (B, classes) finite scores.
        answers: (B,) int64 true classes.
        groups: (B,) cluster of each image, or None where every image is its own.
        streams: Where the draws come from.
        resamples: Number of resampled areas.
    """
    values, true = _checked(scores, answers)
    area = macro_auc(scores, answers)
    names = np.arange(len(true)) if groups is None else groups.numpy()
    _, member = np.unique(names, return_inverse=True)
    sizes = np.bincount(member).astype(np.float64)
    if math.isnan(area) or len(sizes) < 2:
        return Interval(area, math.nan, math.nan, len(true), 0)
    ends = cluster_interval(
        len(sizes), lambda drawn: _resampled_areas(values, true, member, sizes, drawn), streams, resamples
    )
    return Interval(area, *ends, len(true), 0)


def _resampled_areas(
    values: Values, true: Classes, member: npt.NDArray[np.intp], sizes: Values, drawn: Iterator[npt.NDArray[np.int64]]
) -> Values:
    """Returns the macro area of each resample that has one, given the cluster of each image and the clusters' sizes."""
    counts = np.stack([np.bincount(row, minlength=len(sizes)) for block in drawn for row in block]).astype(np.float64)
    total, counted = np.zeros(len(counts)), np.zeros(len(counts))
    for c in _scored_classes(values, true):
        own = true == c
        mine = counts[:, member[own]]
        won = ((counts @ _wins_by_cluster(values[:, c], own, member).T) * mine).sum(axis=1)
        pairs = mine.sum(axis=1) * (counts @ sizes - mine.sum(axis=1))
        there = pairs > 0
        total[there] += won[there] / pairs[there]
        counted += there
    return np.asarray(total[counted > 0] / counted[counted > 0], dtype=np.float64)


class Guess(NamedTuple):
    """What guessing without a payload reaches on the images scored: accuracy in 0..1, and macro AUC."""

    accuracy: float
    auc: float


def informed_guess(
    known: Tensor, known_labels: Tensor | None, answers: Tensor, labels: Tensor | None, classes: int
) -> Guess:
    """Scores the guess of someone who knows the attacker's images and each image's task label, and nothing else.

    He answers with the class that is the most common among the attacker's images of that label, or among all of them
    where they have no image of it; ties go to the lower class.

    Args:
        known: (A,) int64 classes of the attacker's images.
        known_labels: (A,) their task labels; None where the label may not help, because it is what is asked.
        answers: (B,) int64 classes of the images scored.
        labels: (B,) their task labels, or None.
        classes: Number of classes.
    """
    overall = _shares(known, classes)
    shares = np.tile(overall, (len(answers), 1))
    if known_labels is not None and labels is not None:
        for label in sorted(set(labels.tolist())):
            alike = known[known_labels == label]
            if len(alike):
                shares[(labels == label).numpy()] = _shares(alike, classes)
    right = shares.argmax(axis=1) == answers.numpy()
    return Guess(float(right.mean()), macro_auc(torch.from_numpy(shares), answers))


def _shares(known: Tensor, classes: int) -> Values:
    return np.asarray(np.bincount(known.numpy(), minlength=classes) / len(known), dtype=np.float64)


def _checked(scores: Tensor, answers: Tensor) -> tuple[Values, Classes]:
    if scores.ndim != 2 or answers.shape != scores.shape[:1]:
        raise ValueError(f"scores {tuple(scores.shape)} and answers {tuple(answers.shape)} must be (B, C) and (B,)")
    return scores.detach().cpu().double().numpy(), answers.cpu().numpy()


def _scored_classes(values: Values, true: Classes) -> list[int]:
    counts = np.bincount(true, minlength=values.shape[1])[: values.shape[1]]
    return [c for c, count in enumerate(counts.tolist()) if 0 < count < len(true)]


def _midranks(values: Values) -> Values:
    """Returns ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((counts.cumsum() - (counts - 1) / 2)[inverse], dtype=np.float64)


def _wins_by_cluster(values: Values, own: npt.NDArray[np.bool_], member: npt.NDArray[np.intp]) -> Values:
    """Returns (P, G): against how many images of cluster g outside the class image p of the class wins, ties a half."""
    mine = values[own][:, None]
    wins = (mine > values).astype(np.float64) + 0.5 * (mine == values)
    wins[:, own] = 0.0
    order = np.argsort(member, kind="stable")
    starts = np.flatnonzero(np.diff(member[order], prepend=-1))
    return np.asarray(np.add.reduceat(wins[:, order], starts, axis=1), dtype=np.float64)
