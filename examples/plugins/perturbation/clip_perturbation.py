import torch

from leakgauge.harness.contracts.link import Perturbation
from leakgauge.harness.suite.options import Positive


class Clip(Perturbation):
    """Clips an image's token values to a number of their own root mean squares.

    Args:
        at: That number.
    """

    name = "clip"

    def __init__(self, at: Positive = 2.0):
        self.at = at

    def apply(self, batch, ids, rng):
        clipped = []
        for own in batch.tokens.split(batch.lengths.tolist()):  # image by image: no image depends on its batch mates
            most = self.at * own.square().mean().sqrt()
            clipped.append(torch.minimum(torch.maximum(own, -most), most))
        return batch.with_tokens(torch.cat(clipped))
