"""What guesses that see nothing seem to leak: the one that is best on average, and the best on each image.

``python -m leakgauge.benchmarks.studies.blind_guesses`` prints a table of 280 evaluation crops of ``photos``, in dB
above the mean of the attacker's images.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from leakgauge.harness.contracts.task import Task
from leakgauge.harness.scoring.leakage import best_on_average
from leakgauge.harness.scoring.reconstruction import Psnr
from leakgauge.harness.scoring.statistics import bootstrap_streams, mean_interval
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.seeding import Streams

CROPS, AUXILIARY = 280, 1024
_STREAMS = Streams(0, ("blind guesses",))


def centres(images: Tensor, count: int) -> Tensor:
    """Returns (count, 3, H, W) k-means centres of images (N, 3, H, W)."""
    flat = images.flatten(1)
    found = flat[torch.randperm(len(flat), generator=_STREAMS.child("centres").torch())[:count]]
    for _ in range(12):
        nearest = torch.cdist(flat, found).argmin(dim=1)
        found = torch.stack(
            [flat[nearest == k].mean(dim=0) if (nearest == k).any() else found[k] for k in range(count)]
        )
    return found.view(count, *images.shape[1:])


def greys(images: Tensor, count: int) -> Tensor:
    """Returns (count, 3, H, W) constant greys, as bright as quantiles of images (N, 3, H, W)."""
    levels = images.mean(dim=(1, 2, 3)).quantile((torch.arange(count) + 0.5) / count)
    return levels[:, None, None, None].expand(count, *images.shape[1:])


def tints(images: Tensor, count: int) -> Tensor:
    """Returns (count, 3, H, W) the mean of images (N, 3, H, W) in [0, 1], each time with another tint."""
    drawn = torch.randn(count, 3, 1, 1, generator=_STREAMS.child("tints").torch())
    return (images.mean(dim=0) + 0.02 * drawn).clamp(0, 1)


GUESSES: dict[str, tuple[Callable[[Tensor, int], Tensor], tuple[int, ...]]] = {
    "k-means centres": (centres, (1, 4, 8)),
    "constant greys": (greys, (1, 4, 8)),
    "tints of the mean": (tints, (1, 4, 8)),
}


def main() -> None:
    """Prints the table."""
    task: Task = create("tasks", "photos", {}, where="task")
    evaluation = task.split("evaluation").evenly_spaced(CROPS)
    originals, own = evaluation.images(), task.split("attacker").evenly_spaced(AUXILIARY).images()
    assert evaluation.groups is not None

    def psnr_db(guess: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        scores = Psnr().score(originals, guess.expand_as(originals))
        return np.asarray(scores.double().numpy(), dtype=np.float64)

    floor = psnr_db(own.mean(dim=0))
    for name, (guess, counts) in GUESSES.items():
        for count in counts:
            scores = {str(k): psnr_db(one) for k, one in enumerate(guess(own, count))}
            told = []
            for values in (scores[best_on_average(scores)], np.max(list(scores.values()), axis=0)):
                found = mean_interval(values - floor, evaluation.groups, bootstrap_streams(0))
                told.append(f"{found.mean:5.2f} [{found.lo:.2f}, {found.hi:.2f}]")
            print(f"{count:2d} {name:18s} on average {told[0]}, on each image {told[1]}")


if __name__ == "__main__":
    main()
