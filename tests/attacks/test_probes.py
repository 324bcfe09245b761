"""Probes: above chance on an obvious signal, at chance on noise."""

import pytest
import torch
from photo_views import CPU, MERGE, RNG, few_images, seen_by_attacker, view_of

from leakgauge.attacks.attribute import Attribute
from leakgauge.attacks.metadata_only import MetadataOnly, metadata
from leakgauge.attacks.reidentification import Reidentification
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

CLASSES = 3


class MadeUp:
    """Tokens without a victim: an image's label shows in one token value, in the count, or nowhere.

    Args:
        shown: ``values``, ``count`` or ``nothing``.
    """

    image_shape, grid, device, noisy = (3, 8, 8), (2, 2), CPU, False

    def __init__(self, shown: str) -> None:
        self.shown = shown

    def observe(self, images: ImageSet, draw: int = 0) -> Observation:
        rng = Streams(0, ("made up", images.digest())).torch()
        labels = images.labels
        lengths = torch.randint(3, 9, (len(images),), generator=rng)
        if self.shown == "count":
            lengths = 3 + 2 * labels
        tokens = torch.randn(int(lengths.sum()), 6, generator=rng)
        if self.shown == "values":
            # In one token of each image only, so that pooling has to find it.
            tokens[lengths.cumsum(0) - 1, 0] = 3.0 * (labels.float() - 1.0)
            tokens[lengths.cumsum(0) - 1, 1] = 4.0
        return Observation(tokens, lengths, 0, self.grid, torch.ones(len(tokens), dtype=torch.long))


def made_up_images(count: int, seed: int) -> ImageSet:
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=rng, dtype=torch.uint8)
    return ImageSet.from_pixels(pixels, torch.randint(0, CLASSES, (count,), generator=rng))


def accuracy(probe, shown: str) -> float:
    view, train, test = MadeUp(shown), made_up_images(600, 0), made_up_images(300, 1)
    assert probe.fit(view, train, train.labels, CLASSES, RNG) is None
    scores = probe.predict(view.observe(test), RNG)
    assert scores.shape == (300, CLASSES)
    assert torch.allclose(scores.sum(dim=1), torch.ones(300), atol=1e-4)
    return float((scores.argmax(dim=1) == test.labels).float().mean())


@pytest.mark.parametrize(
    ("probe", "shown"), [(Attribute("label", epochs=25), "values"), (MetadataOnly(rounds=10), "count")]
)
def test_an_obvious_signal_is_found_and_noise_is_not(probe, shown):
    assert accuracy(probe, shown) > 0.8
    assert accuracy(probe, "nothing") == pytest.approx(1 / CLASSES, abs=0.1)


def test_metadata_reads_no_token_value():
    seen = MadeUp("values").observe(made_up_images(20, 0))
    other = Observation(seen.tokens + 5, seen.lengths, 0, seen.grid, seen.sizes)
    assert (metadata(seen) == metadata(other)).all()
    assert metadata(seen).shape[1] > metadata(Observation(seen.tokens, seen.lengths, 0, seen.grid)).shape[1] == 1
    assert accuracy(MetadataOnly(rounds=5), "values") == pytest.approx(1 / CLASSES, abs=0.1)


def test_metadata_knows_absent_classes_too():
    view, images = MadeUp("count"), made_up_images(200, 0)
    probe = MetadataOnly(rounds=5)
    probe.fit(view, images, images.labels * 2, 6, RNG)
    scores = probe.predict(view.observe(images), RNG)
    assert scores.shape == (200, 6)
    assert (scores[:, [1, 3, 5]] == 0).all()


def top1(victim, photographs, model=None, **options) -> float:
    view, probe = view_of(victim, model, **options), Reidentification()
    probe.fit(view, few_images(), RNG)
    # The gallery in another order: image i is candidate 31 - i.
    gallery = photographs.select(range(31, -1, -1))
    bare = ImageSet(gallery.pixels, gallery.ids)
    scores = probe.rank(seen_by_attacker(victim, photographs, model, **options), view, bare, RNG)
    assert scores.shape == (32, 32)
    return float((scores.argmax(dim=1) == torch.arange(31, -1, -1)).float().mean())


def test_images_are_found_in_a_gallery(victim, photographs):
    assert top1(victim, photographs, **MERGE) == 1.0
    blind = ThreatModel(knows={"sizes": False, "order": False})
    assert top1(victim, photographs, blind, channel={"name": "awgn", "snr_db": 0}, **MERGE) > 0.8


def test_a_payload_of_noise_identifies_nobody(victim, photographs):
    assert top1(victim, photographs, channel={"name": "awgn", "snr_db": -60}) < 0.25
