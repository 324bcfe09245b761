"""The entropy codec on real tokens: what it saves, that it loses nothing, and that both ends stay exact."""

import hashlib

import numpy as np
import pytest
import torch

from leakgauge.defenses.codecs.entropy import LEAST_WIDTH, VALUES_PER_BYTE, EntropyCodec
from leakgauge.defenses.codecs.uniform import UniformCodec
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.defenses.wire.packet_layout import Known
from leakgauge.defenses.wire.payload import parse, serialise
from leakgauge.harness.values.seeding import Streams

THRESHOLD = {"name": "threshold", "thresholds": 0.9}


@pytest.mark.parametrize(
    ("cut", "reduction", "gain"),
    [(6, THRESHOLD, 0.15), (3, THRESHOLD, 0.18), (6, "none", 0.25), (3, "none", 0.25)],
    ids=["merged, cut 6", "merged, cut 3", "all tokens, cut 6", "all tokens, cut 3"],
)
def test_it_saves_at_least_15_per_cent_of_4_bits_and_loses_nothing(victim, photographs, cut, reduction, gain):
    def encoded(codec):
        pipeline = SplitPipeline(victim, torch.device("cpu"), cut=cut, reduction=reduction, codec=codec)
        return pipeline.encode(photographs, Streams(1))

    packed, coded = encoded({"name": "uniform", "bits": 4}), encoded({"name": "entropy", "bits": 4})
    assert torch.equal(packed.decoded.tokens, coded.decoded.tokens)
    assert torch.equal(packed.side_bytes, coded.side_bytes)
    assert float(coded.payload_bytes.sum() / packed.payload_bytes.sum()) < 1 - gain
    assert bool((coded.payload_bytes < packed.payload_bytes).all())


def bell(count: int, width: int) -> torch.Tensor:
    """Tokens (count, width) like bells around a mean per channel, from integers: the same on every platform."""
    index = np.arange(count * width * 4, dtype=np.uint64)
    noise = ((index * 2654435761) >> 7) % 1024
    values = noise.reshape(count, width, 4).sum(axis=2).astype(np.float32) / 1024 - 2
    return torch.from_numpy(values + np.float32(0.25) * (np.arange(width, dtype=np.float32) % 8))


def test_the_bytes_are_the_same_on_every_platform():
    # Fixed here, so that a machine, library or edit that computes other probabilities fails.
    kinds = ((2, "token"), (4, "token"), (8, "token"), (4, "channel"))
    data = b"".join(EntropyCodec(bits, per).encode(bell(20, 96)) for bits, per in kinds)
    assert hashlib.sha256(data).hexdigest()[:16] == "d65d1be7dc66a998"


def test_it_learns_from_earlier_tokens():
    token = bell(1, 192)
    lengths = [len(EntropyCodec(4).encode(token.expand(n, -1))) for n in (1, 2, 40, 41)]
    assert lengths[3] - lengths[2] < 0.5 * (lengths[1] - lengths[0])


@pytest.mark.parametrize("width", [LEAST_WIDTH, 1, 32, 100])
def test_no_image_is_coded_in_less_than_the_limit_and_padding_comes_back(width):
    count = 128_000 // max(width, LEAST_WIDTH)
    tokens = bell(1, width).expand(count, -1).contiguous()
    payload = serialise(tokens, None, 0, EntropyCodec(2))
    # A narrow token counts as one of 64 values: each takes its time, however narrow.
    assert payload.account.values == -(-count * max(width, LEAST_WIDTH) // (4 * VALUES_PER_BYTE)) * 4
    expected = UniformCodec(2).decode(UniformCodec(2).encode(tokens), count, width)
    assert torch.equal(parse(payload.data, Known(0, width, count), EntropyCodec(2)).tokens, expected)
