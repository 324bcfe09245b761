"""Gives a victim a head: a linear probe on its frozen features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.values.images import ImageSet

PENALTY = 1e-2
"""Weight of the squared norm beside the mean cross-entropy, on standardised features."""
MAX_STEPS = 500
BATCH = 64


@torch.no_grad()
def pooled_features(victim: Victim, images: ImageSet) -> Tensor:
    """Returns what the victim's head sees of each image, (N, D) float32."""
    model: Any = victim.model
    parts = [
        model.forward_head(model.forward_features(victim.normalise(batch.images())), pre_logits=True)
        for batch in images.batches(BATCH)
    ]
    return torch.cat(parts)


def fit_linear(features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
    """Fits multinomial logistic regression with an L2 penalty: convex, in float64, from zero, so without chance.

    Args:
        features: (N, D) float32.
        labels: (N,) int64 below ``classes``.
        classes: Classes of the result.

    Returns:
        A layer from raw features to logits; the standardisation of features is folded into it.
    """
    mean, std = features.double().mean(0), features.double().std(0, correction=0).clamp_min(1e-6)
    standardised = (features.double() - mean) / std
    weight = torch.zeros(classes, features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=MAX_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = functional.cross_entropy(standardised @ weight.T + bias, labels) + PENALTY * weight.square().sum() / 2
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    layer = nn.Linear(features.shape[1], classes)
    with torch.no_grad():
        folded = weight / std
        layer.weight.copy_(folded)
        layer.bias.copy_(bias - folded @ mean)
    return layer


def attach_probe(victim: Victim, images: ImageSet, classes: int) -> None:
    """Fits a probe to labelled images and makes it the head of the victim's own model.

    Args:
        victim: A timm model that nothing else uses yet.
        images: The probe's training images, with labels below ``classes``.
        classes: Classes of the new head.
    """
    if images.labels is None:
        raise ValueError("a probe needs labels")
    layer = fit_linear(pooled_features(victim, images), images.labels, classes)
    model: Any = victim.model
    model.reset_classifier(classes)
    heads = model.get_classifier()
    # Of a distilled model each head reads its own token and their logits are averaged, as the features were.
    for head in heads if isinstance(heads, tuple) else (heads,):
        head.load_state_dict(layer.state_dict())
    model.eval()
