from functools import cache

import timm
import torch
from torch.nn.functional import interpolate

from leakgauge.harness.contracts.task import Task
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.values.images import SPLITS, ImageSet

PX, SIZES = 32, {"attacker": 96, "calibration": 8, "search": 8, "evaluation": 32}


@cache
def drawn() -> ImageSet:
    """Draws all images: stripes across or down, over clouds of colour that no two images share."""
    dice, count = torch.Generator().manual_seed(0), sum(SIZES.values())
    down = torch.arange(count) % 2
    clouds = torch.rand(count, 3, 9, 9, generator=dice) * 220
    level = 0.4 + 0.6 * torch.rand(count, 1, 1, 1, generator=dice)
    clouds = interpolate(clouds, size=(PX, PX), mode="bilinear") * level
    across = (torch.arange(PX) // 4 % 2 * 20).reshape(1, 1, PX, 1).expand(count, 1, PX, PX)
    stripes = torch.where(down.bool()[:, None, None, None], across.transpose(2, 3), across)
    return ImageSet.from_pixels((clouds + stripes).to(torch.uint8), down)


class Stripes(Task):
    """Drawn stripes, across or down. The victim is a tiny ViT that was never trained: a task to try plug-ins on.

    Raise ``version`` whenever numbers move.
    """

    name = "stripes"
    version = 1
    quality_name = "top-1 accuracy"

    def victim(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            shape = {"img_size": PX, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 2}
            model = timm.create_model("vit_tiny_patch16_224", **shape).eval()
        return Victim(model, (0.5,) * 3, (0.5,) * 3, weights_hash="seed 0", name="untrained ViT, 3 blocks of 32")

    def split(self, name):
        start = sum(SIZES[other] for other in SPLITS[: SPLITS.index(name)])
        return drawn().select(range(start, start + SIZES[name]))

    def target(self, images):
        return images.labels

    def quality(self, output, target):
        return (output.argmax(dim=1).cpu() == target).float()

    def attributes(self, images):
        return {"dark": (images.pixels.float().mean(dim=(1, 2, 3)) < 92).long()}
