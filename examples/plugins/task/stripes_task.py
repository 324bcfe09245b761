import timm
import torch
from torch.nn.functional import interpolate

from leakgauge import ImageSet, LabelledTask


class Stripes(LabelledTask):
    """Drawn stripes, across or down, for a tiny ViT that was never trained: a task to try plug-ins on."""

    def images(self):
        dice, down = torch.Generator().manual_seed(0), torch.arange(160) % 2
        # Clouds of colour, which no two images share.
        clouds = interpolate(torch.rand(160, 3, 9, 9, generator=dice) * 220, size=(32, 32), mode="bilinear")
        light = 0.4 + 0.6 * torch.rand(160, 1, 1, 1, generator=dice)
        across = (torch.arange(32) // 4 % 2 * 20)[:, None].expand(32, 32)
        stripes = torch.where(down.bool()[:, None, None, None], across.T, across)
        return ImageSet.from_pixels((clouds * light + stripes).to(torch.uint8), labels=down)

    def model(self):
        size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
        return timm.create_model("vit_tiny_patch16_224", num_classes=2, **size)

    def attributes(self, images):
        return {"dark": (images.pixels.float().mean(dim=(1, 2, 3)) < 92).long()}
