"""Applies a suite's metrics to reconstructions, image by image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from leakgauge.harness.contracts.metric import Metric
from leakgauge.harness.errors import PluginError
from leakgauge.harness.scoring.guards import shape_of
from leakgauge.harness.scoring.measures import check_metrics
from leakgauge.harness.suite.registry import create
from leakgauge.harness.suite.schema import Suite
from leakgauge.harness.system.containment import contained


class ImageScores(NamedTuple):
    """Scores by column name, each (B,) with NaN for unscored; and why a metric is unscored, where it is."""

    values: dict[str, Tensor]
    reasons: dict[str, str]


def metrics_of(suite: Suite) -> list[Metric]:
    """Builds the metrics of a suite.

    Raises:
        ConfigError: One is unknown or refuses an option.
        PluginError: One is no metric, or can have no column.
    """
    built = [create("metrics", config.name, config.options, where="metrics") for config in suite.metrics]
    for config, metric in zip(suite.metrics, built, strict=True):
        if not isinstance(metric, Metric):
            raise PluginError(
                f"{type(metric).__name__} is no metric", where=f"metrics: {config.name}", hint="derive it from Metric"
            )
    check_metrics(built)
    return built


def guarded_score(metric: Metric, originals: Tensor, reconstructions: Tensor) -> Tensor:
    """Scores images (B, 3, H, W) in [0, 1]: (B,) on the CPU, NaN where unscored; what is not finite counts as that."""
    where = f"metric {metric.name!r}"
    with contained("score", where):
        # Copies, so that no metric can change what the next one sees.
        scores = metric.score(originals.clone(), reconstructions.clone())
    if not isinstance(scores, Tensor) or scores.shape != (len(originals),) or scores.is_complex():
        raise PluginError(f"scores are {shape_of(scores)}, expected ({len(originals)},)", where=where)
    scores = scores.detach().cpu().double()
    return scores.where(scores.isfinite(), torch.nan).float()


def score_images(suite: Suite, originals: Tensor, reconstructions: Tensor, device: torch.device) -> ImageScores:
    """Scores uint8 reconstructions (B, 3, H, W) against uint8 originals.

    Raises:
        PluginError: A metric failed, or returned something other than (B,) values.
    """
    a, b = (x.to(device).float() / 255.0 for x in (originals, reconstructions))
    values: dict[str, Tensor] = {}
    reasons: dict[str, str] = {}
    for metric in metrics_of(suite):
        scores = guarded_score(metric, a, b)
        values[metric.name] = scores
        missing = int(scores.isnan().sum())
        if missing:
            why = str(getattr(metric, "unscored_reason", "") or "")
            reasons[metric.name] = why or f"{missing} of {len(scores)} images could not be scored"
    return ImageScores(values, reasons)
