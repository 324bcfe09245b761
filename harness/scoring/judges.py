"""The judges that ship: LPIPS's AlexNet, which shares nothing with a victim, and the victim itself."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import PluginError
from leakgauge.harness.scoring.judging import Judge
from leakgauge.harness.scoring.reconstruction import LPIPS_MIN_SIDE, exact_float32, lpips_network

PLACES = 4
"""Side of the grid to which each layer is pooled: what lies where still counts, a pixel's shift does not."""
IMAGES = 8


class AlexNetJudge(Judge):
    """AlexNet as LPIPS looks through it: the five layers, each place at unit length, pooled to at most 4 x 4 places.

    Trained on ImageNet-1k and fixed; no attack sees it. Images have at least ``LPIPS_MIN_SIDE`` px a side.
    """

    name = "alexnet"

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def features(self, images: Tensor) -> Tensor:
        """Returns features (B, D) of images (B, 3, H, W) in [0, 1]; NaN without weights or of too small images."""
        found = lpips_network()
        height, width = images.shape[2:]
        if isinstance(found, str):
            self.unscored_reason = found
        elif min(height, width) < LPIPS_MIN_SIDE:
            self.unscored_reason = (
                f"this judge needs images of at least {LPIPS_MIN_SIDE} px, these have {height} x {width}"
                " -- score larger images, or name another `judge`"
            )
        else:
            network: Any = found[0].to(images.device)
            with exact_float32(images.device):
                return torch.cat([_pooled(network, part) for part in torch.split(images, IMAGES)])
        return images.new_full((len(images), 1), torch.nan)

    def described(self) -> dict[str, str]:
        """Returns where the weights come from and their hash, or that there are none."""
        found = lpips_network()
        what = {"features": f"AlexNet's five layers as in LPIPS v0.1, pooled to at most {PLACES} x {PLACES} places"}
        if isinstance(found, str):
            return {**what, "unscored": found}
        return {**what, "weights": found[1].source, "weights_sha256": found[1].sha256}


def _pooled(network: Any, images: Tensor) -> Tensor:
    """Returns the layers of AlexNet side by side, (B, D)."""
    layers = network.net.forward(network.scaling_layer(images * 2.0 - 1.0))
    parts = []
    for layer in layers:
        side = min(PLACES, *layer.shape[2:])
        # Each layer weighs alike, whatever its channels and places.
        parts.append(adaptive_avg_pool2d(normalize(layer, dim=1, eps=1e-10), side).flatten(1) / side)
    return torch.cat(parts, dim=1)


class VictimJudge(Judge):
    """The victim itself, by its features before the classifier. Not independent: a white-box attack can please it."""

    name = "victim"
    independent: ClassVar[bool] = False

    def __init__(self) -> None:
        self._victim: Victim | None = None

    def prepare(self, victim: Victim, device: torch.device) -> None:
        """Takes the victim."""
        self._victim = victim

    def features(self, images: Tensor) -> Tensor:
        """Returns the victim's features (B, D)."""
        if self._victim is None:
            raise PluginError("it knows no victim", where="judge 'victim'", hint="call prepare() first")
        return self._victim.embed(images)

    def described(self) -> dict[str, str]:
        """Returns what it judges by."""
        return {"features": "the victim's own, before its classifier"}
