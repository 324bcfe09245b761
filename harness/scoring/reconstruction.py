"""Reconstruction fidelity: PSNR, SSIM and LPIPS of each image against its original.

PSNR and SSIM score images one at a time, so that no score depends on batch mates; for SSIM that is also the fastest way
on a CPU, since an image's intermediate maps stay in the cache. LPIPS takes small images eight at a time, which is 2.5
times as fast and moves a score by about 1e-8.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from leakgauge.harness.contracts.metric import Metric
from leakgauge.harness.errors import DataError
from leakgauge.harness.scoring.lpips_weights import TrunkWeights, build_network

PSNR_CEILING_DB = 100.0
"""Largest PSNR reported, in dB: a mean squared error of 1e-10 or less. Infinity would swallow every mean."""

SSIM_WINDOW = 11
"""Side of SSIM's Gaussian window, in pixels."""

LPIPS_MIN_SIDE = 31
"""Shortest side, in pixels, from which AlexNet's second pooling still has an output."""


def exact_float32(device: torch.device) -> AbstractContextManager[None]:
    """Switches TF32 off on CUDA: SSIM subtracts nearly equal numbers, of which 10 bits of mantissa would leave none."""
    if device.type != "cuda":
        return nullcontext()
    cudnn = torch.backends.cudnn
    exact: AbstractContextManager[None] = cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=False)
    return exact


class ImageMetric(Metric):
    """A metric that scores a few images at a time in float32, on the device of its input.

    Subclasses write ``_score``. ``unscored_reason`` says, after a call that returned NaN for a reason the metric
    knows, what that reason is and how to mend it; otherwise it is empty.
    """

    min_side: ClassVar[int] = 1
    """Shortest side, in pixels, of an image that can be scored."""

    pixels_per_pass: ClassVar[int] = 1
    """Images are scored together while they have fewer pixels than this; by default, one at a time."""

    unscored_reason: str = ""

    def score(self, originals: Tensor, reconstructions: Tensor) -> Tensor:
        """Scores reconstructions.

        Args:
            originals: (B, 3, H, W) in [0, 1].
            reconstructions: (B, 3, H, W) in [0, 1].

        Returns:
            (B,) float32 on the same device; NaN where unscored.
        """
        if originals.shape != reconstructions.shape:
            raise ValueError(f"originals {tuple(originals.shape)}, reconstructions {tuple(reconstructions.shape)}")
        self.unscored_reason = ""
        height, width = originals.shape[-2:]
        if min(height, width) < self.min_side:
            self.unscored_reason = (
                f"{self.name} needs images of at least {self.min_side} px, these have {height} x {width}"
                " -- score larger images"
            )
        if self.unscored_reason or not len(originals) or not self._ready():
            return torch.full((len(originals),), torch.nan, device=originals.device)
        chunk = max(1, self.pixels_per_pass // (height * width))
        pairs = zip(torch.split(originals.float(), chunk), torch.split(reconstructions.float(), chunk), strict=True)
        with torch.no_grad(), exact_float32(originals.device):
            scores = [self._score(*pair) for pair in pairs]
        return torch.cat(scores)

    def _ready(self) -> bool:
        """Whether the metric can score; sets ``unscored_reason`` where it cannot."""
        return True

    @abstractmethod
    def _score(self, original: Tensor, reconstruction: Tensor) -> Tensor:
        """Returns (b,) the scores of a few images (b, 3, H, W) in [0, 1]."""


class Psnr(ImageMetric):
    """Peak signal-to-noise ratio over all pixels and channels, data range 1, at most ``PSNR_CEILING_DB``.

    Computed by torchmetrics. The mean of a set is the mean of per-image values, not the PSNR of the mean error.
    """

    name: ClassVar[str] = "psnr_db"
    unit: ClassVar[str] = "dB"
    leaks_when: ClassVar[Literal["higher", "lower"]] = "higher"

    def _score(self, original: Tensor, reconstruction: Tensor) -> Tensor:
        from torchmetrics.functional.image import peak_signal_noise_ratio  # noqa: PLC0415 - takes seconds

        score: Tensor = peak_signal_noise_ratio(
            reconstruction, original, data_range=1.0, reduction="none", dim=(1, 2, 3)
        )
        return score.clamp(max=PSNR_CEILING_DB)


class Ssim(ImageMetric):
    """Structural similarity (Wang et al. 2004): Gaussian window 11, sigma 1.5, data range 1, K1 .01, K2 .03.

    Mean over channels and over the windows that lie wholly inside the image, as in the paper and in scikit-image.
    torchmetrics computes the map; its own mean would also take in windows over reflected borders. From -1 to 1.
    """

    name: ClassVar[str] = "ssim"
    unit: ClassVar[str] = ""
    leaks_when: ClassVar[Literal["higher", "lower"]] = "higher"
    min_side: ClassVar[int] = SSIM_WINDOW

    def _score(self, original: Tensor, reconstruction: Tensor) -> Tensor:
        from torchmetrics.functional.image import structural_similarity_index_measure  # noqa: PLC0415 - takes seconds

        similarity: Tensor = structural_similarity_index_measure(
            reconstruction,
            original,
            gaussian_kernel=True,
            sigma=1.5,
            kernel_size=SSIM_WINDOW,
            reduction="none",
            data_range=1.0,
            return_full_image=True,
        )[1]
        border = SSIM_WINDOW // 2
        return similarity[..., border:-border, border:-border].mean(dim=(1, 2, 3))


class Lpips(ImageMetric):
    """Learned perceptual distance (Zhang et al. 2018), v0.1 with AlexNet, from the package ``lpips``; 0 is identical.

    The network is loaded on the first use, once a process. Without trunk weights every score is NaN and
    ``unscored_reason`` says how to get them; nothing takes their place. The linear layers were calibrated on 64-px
    patches.
    """

    name: ClassVar[str] = "lpips"
    unit: ClassVar[str] = ""
    leaks_when: ClassVar[Literal["higher", "lower"]] = "lower"
    min_side: ClassVar[int] = LPIPS_MIN_SIDE
    pixels_per_pass: ClassVar[int] = 8 * 64 * 64

    weights_sha256: str = ""
    """Hash of the trunk's weights, once loaded."""

    _network: nn.Module | None = None

    def _ready(self) -> bool:
        found = lpips_network()
        if isinstance(found, str):
            self.unscored_reason = found
            return False
        self._network, weights = found
        self.weights_sha256 = weights.sha256
        return True

    def _score(self, original: Tensor, reconstruction: Tensor) -> Tensor:
        assert self._network is not None
        network = self._network.to(original.device)
        # lpips takes [-1, 1]; scaled here rather than by its flag, so that the range is in plain sight.
        distance: Tensor = network(original * 2.0 - 1.0, reconstruction * 2.0 - 1.0)
        return distance.flatten()


@cache
def lpips_network() -> tuple[nn.Module, TrunkWeights] | str:
    """Returns the network and its weights, or why there is none; kept, since a search may wait for the network."""
    try:
        return build_network()
    except DataError as error:
        return str(error)
