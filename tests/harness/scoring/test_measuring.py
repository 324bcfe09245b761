"""What is measured of a defense and of reconstructions, on toys whose numbers can be written down."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from leakgauge.harness.contracts.defense import Defense
from leakgauge.harness.contracts.link import Encoded, Transmission
from leakgauge.harness.measurement.transmitting import link_costs
from leakgauge.harness.scoring.compute import TIMED, WARM_UP, measure_flops, measure_latency_ms, with_parts
from leakgauge.harness.scoring.metrics import score_images
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

CPU = torch.device("cpu")
SUITE = parse_suite(
    {
        "name": "s",
        "task": "photos",
        "operating_points": [{"name": "undefended"}],
        "attacks": ["floor_mean"],
        "metrics": ["psnr_db", "ssim"],
    }
)


def image_set(values):
    pixels = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 12, 12).contiguous()
    return ImageSet.from_pixels(pixels)


def test_bytes_are_scored_as_values_from_0_to_1():
    originals = torch.zeros(4, 3, 12, 12, dtype=torch.uint8)
    levels = torch.tensor([0, 26, 51, 255], dtype=torch.uint8)[:, None, None, None]
    found = score_images(SUITE, originals, originals + levels, CPU).values
    expected = [100.0, *(-20 * np.log10(level / 255) for level in (26, 51, 255))]
    assert found["psnr_db"].tolist() == pytest.approx(expected, abs=1e-4)
    # For constant images SSIM is its luminance term: C1 / (y^2 + C1) against black.
    assert found["ssim"].tolist() == pytest.approx([1e-4 / ((v / 255) ** 2 + 1e-4) for v in (0, 26, 51, 255)], abs=1e-4)


def test_a_metric_that_cannot_score_says_so_and_takes_no_other_s_place():
    small = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    found = score_images(SUITE, small, small, CPU)
    assert found.values["ssim"].isnan().all()
    assert set(found.reasons) == {"ssim"}
    assert found.values["psnr_db"].tolist() == [100.0, 100.0]


class Toy(Defense):
    """An edge of one product (rows x 5) (5 x 7) an image, as many rows as its pixels say, and a server of another."""

    name = "toy"
    grid = (1, 1)

    def __init__(self, lost=0):
        self.channel, self.lost = SimpleNamespace(random=False, snr_db=None), lost

    def encode(self, images, rng):
        lengths = images.pixels[:, 0, 0, 0].long()
        tokens = torch.cat([torch.ones(int(n), 5) @ torch.ones(5, 7) for n in lengths])
        batch = TokenBatch(tokens, lengths, torch.ones(len(tokens)).long(), torch.full((len(images), 1), -1), 0)
        return Encoded(images.ids, batch, lengths * 28, lengths, lengths[:, None], False)

    def send(self, encoded, rng, channel=None):
        kept = encoded.decoded.lengths - self.lost
        rows = [torch.arange(int(s), int(s + n)) for s, n in zip(encoded.decoded.offsets[:-1], kept, strict=True)]
        batch = encoded.decoded
        received = TokenBatch(
            batch.tokens[torch.cat(rows)], kept, torch.ones(int(kept.sum())).long(), batch.merge_map, 0
        )
        return Transmission(encoded, received, encoded.decoded.lengths * 4, None)

    def respond(self, transmission, questions=None):
        return transmission.received.tokens @ torch.ones(7, 3)


@pytest.mark.parametrize("lost", [0, 1])
def test_flops_are_two_a_multiply_add_of_what_each_image_alone_needs(lost):
    images, toy = image_set([4, 9, 4]), Toy(lost)
    sent = toy.send(toy.encode(images, Streams(0)), Streams(0))
    found = measure_flops(toy, images, sent, Streams(0))
    edge = [2 * n * 5 * 7 for n in (4, 9, 4)]
    server = [2 * (n - lost) * 7 * 3 for n in (4, 9, 4)]
    assert (found.edge * 1e9).tolist() == pytest.approx(edge)
    assert (found.total * 1e9).tolist() == pytest.approx([a + b for a, b in zip(edge, server, strict=True)])


def test_flops_do_not_depend_on_whether_the_edge_saw_the_image_before():
    class Remembers(Toy):
        seen = None

        def encode(self, images, rng):
            new = set(images.ids) - (self.seen or set())
            self.seen = (self.seen or set()) | new
            _ = torch.ones(50 * len(new), 4) @ torch.ones(4, 4)  # what it keeps, as embeddings are kept
            return super().encode(images, rng)

    images, cold, warm = image_set([4, 9]), Remembers(), Remembers()
    sent = warm.send(warm.encode(images, Streams(0)), Streams(0))
    found = [measure_flops(toy, images, sent, Streams(0)) for toy in (cold, warm, warm)]
    assert len({tuple(flops.edge.tolist()) for flops in found}) == 1
    assert (found[0].edge * 1e9).tolist() == pytest.approx([2 * n * 5 * 7 for n in (4, 9)])


def test_parts_add_up_and_the_projector_is_counted_once():
    server = {"tower": torch.tensor([2.0]), "projector": torch.tensor([1.0]), "prefill": torch.tensor([4.0])}
    for on_edge, edge in ((False, 8.0), (True, 9.0)):
        found = with_parts(torch.tensor([edge]), server, on_edge)
        assert found.parts["tower"].tolist() == [10.0]
        assert found.total.tolist() == [15.0]


def test_latency_is_the_median_in_milliseconds_after_the_warm_up(monkeypatch):
    seconds = [9.0] * WARM_UP + [0.001 * (i + 1) for i in range(TIMED)] + [99.0]
    clock, calls = [0.0], [0]

    class Timed(Toy):
        def respond(self, transmission, questions=None):
            clock[0] += seconds[calls[0]]
            calls[0] += 1

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    found = measure_latency_ms(Timed(), image_set([4] * (WARM_UP + TIMED + 1)), Streams(0), CPU)
    assert found == pytest.approx((TIMED + 1) / 2)
    assert calls[0] == WARM_UP + TIMED


def test_what_sending_costs():
    images, toy = image_set([4, 9]), Toy()
    sent = toy.send(toy.encode(images, Streams(0)), Streams(0))
    found = link_costs(sent, bandwidth_hz=2e3)
    assert found["tokens"].tolist() == [4, 9]
    assert found["payload_bytes"].tolist() == [4 * 28, 9 * 28]
    assert found["side_bytes"].tolist() == [4, 9]
    assert found["channel_uses"].tolist() == [16, 36]
    assert found["air_time_ms"].tolist() == [8.0, 18.0]
    assert found["spectral_efficiency_bits"].tolist() == [8 * 28 / 4] * 2
