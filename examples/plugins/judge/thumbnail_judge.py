from torch.nn.functional import adaptive_avg_pool2d

from leakgauge.harness.scoring.judging import Judge


class Thumbnail(Judge):
    """Recognises an image by its colours on an 8 x 8 grid, less their mean."""

    name = "thumbnail"

    def features(self, images):
        places = adaptive_avg_pool2d(images, 8).flatten(2)
        return (places - places.mean(dim=2, keepdim=True)).flatten(1)
