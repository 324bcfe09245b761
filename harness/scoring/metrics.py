"""Applies a suite's metrics to reconstructions, image by image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from harness.contracts import Metric
from harness.errors import ConfigError, PluginError
from harness.registry import create
from harness.results import SCORE_NAMES
from harness.suite import Suite


class ImageScores(NamedTuple):
    """Scores by column name, each (B,) with NaN for unscored; and why a metric is unscored, where it is."""

    values: dict[str, Tensor]
    reasons: dict[str, str]


def score_images(suite: Suite, originals: Tensor, reconstructions: Tensor, device: torch.device) -> ImageScores:
    """Scores uint8 reconstructions (B, 3, H, W) against uint8 originals.

    Raises:
        ConfigError: A metric has no column in the result schema.
        PluginError: A metric returned something other than (B,) values.
    """
    a, b = (x.to(device).float() / 255.0 for x in (originals, reconstructions))
    values: dict[str, Tensor] = {}
    reasons: dict[str, str] = {}
    for config in suite.metrics:
        metric: Metric = create("metrics", config.name, config.options, where="metrics")
        if metric.name not in SCORE_NAMES:
            raise ConfigError(f"metric {metric.name!r} has no column", where="metrics", mend=f"use {SCORE_NAMES}")
        scores = metric.score(a.clone(), b.clone()).detach().cpu()
        if scores.shape != (len(a),):
            raise PluginError(
                f"scores are {tuple(scores.shape)}, expected ({len(a)},)", where=f"metric {metric.name!r}"
            )
        values[metric.name] = scores
        if bool(scores.isnan().any()):
            reasons[metric.name] = str(getattr(metric, "unscored_reason", "")) or "some images could not be scored"
    return ImageScores(values, reasons)
