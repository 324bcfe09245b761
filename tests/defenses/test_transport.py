"""Packets over lossy links: what arrives, what stands in for what was lost, and what the pipeline makes of it."""

import pytest
import torch

from leakgauge.benchmarks.tasks.photo_crops.photos import crop_set
from leakgauge.defenses.channels.digital import DigitalChannel, ErasureChannel
from leakgauge.defenses.codecs.floating import Float32Codec
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.defenses.wire.packet_layout import Known
from leakgauge.defenses.wire.transport import Placeholder, pack, received_batch, unpack
from leakgauge.harness.errors import ConfigError, PayloadError, PluginError
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import DROPPED, TokenBatch

CPU = torch.device("cpu")
RNG = Streams(0)
MERGE = {"name": "threshold", "thresholds": 0.9}


KNOWN = Known(1, 4, 66)


def image(patches=10, width=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1 + patches, width, generator=generator), torch.arange(1, patches + 2)


def placeholder(width=4):
    return Placeholder(torch.full((1, width), 7.0), torch.full((width,), 9.0))


@pytest.mark.parametrize("packet_tokens", [None, 1, 3, 10, 99])
def test_what_is_packed_is_unpacked(packet_tokens):
    tokens, sizes = image()
    sizes[0] = 1
    packets = pack(tokens, sizes, 1, Float32Codec(), packet_tokens)
    assert len(packets) == {None: 1, 1: 10, 3: 4, 10: 1, 99: 1}[packet_tokens]
    arrived = unpack([p.data for p in packets], KNOWN, Float32Codec(), placeholder(), "drop")
    assert torch.equal(arrived.tokens, tokens)
    assert torch.equal(arrived.sizes, sizes)
    assert arrived.source.tolist() == list(range(11))


@pytest.mark.parametrize("on_loss", ["drop", "mean"])
def test_lost_patch_tokens_are_dropped_or_replaced_by_the_mean(on_loss):
    tokens, sizes = image()
    sizes[0] = 1
    packets = [p.data for p in pack(tokens, sizes, 1, Float32Codec(), 3)]
    packets[1] = None  # patch tokens 4, 5, 6 of the image
    arrived = unpack(packets, KNOWN, Float32Codec(), placeholder(), on_loss)
    if on_loss == "drop":
        assert arrived.source.tolist() == [0, 1, 2, 3, 7, 8, 9, 10]
        assert torch.equal(arrived.tokens, tokens[arrived.source])
    else:
        assert arrived.source.tolist() == [0, 1, 2, 3, -1, -1, -1, 7, 8, 9, 10]
        assert bool((arrived.tokens[4:7] == 9).all())
        assert arrived.sizes[4:7].tolist() == [1, 1, 1]


@pytest.mark.parametrize("on_loss", ["drop", "mean"])
def test_a_lost_protected_token_is_always_replaced(on_loss):
    tokens, sizes = image()
    sizes[0] = 1
    packets = [p.data for p in pack(tokens, sizes, 1, Float32Codec(), 3)]
    arrived = unpack([None, *packets[1:]], KNOWN, Float32Codec(), placeholder(), on_loss)
    assert arrived.tokens[0].tolist() == [7.0] * 4
    nothing = unpack([None] * 4, KNOWN, Float32Codec(), placeholder(), on_loss)
    assert nothing.tokens.tolist() == [[7.0] * 4]


def test_packets_that_contradict_one_another_are_refused():
    tokens, _ = image()
    one = pack(tokens, None, 1, Float32Codec(), 3)[0].data
    other = pack(tokens[:8], None, 1, Float32Codec(), 3)[1].data
    with pytest.raises(PayloadError, match="disagree"):
        unpack([one, other], KNOWN, Float32Codec(), placeholder(), "drop")


def test_the_merge_map_follows_what_arrived():
    tokens = torch.randn(5, 4)
    merge_map = torch.tensor([[1, 2, 2, 3, DROPPED, 4]])
    sent = TokenBatch(tokens, torch.tensor([5]), torch.tensor([1, 1, 2, 1, 1]), merge_map, 1)
    packets = [p.data for p in pack(sent.tokens, sent.sizes, 1, Float32Codec(), 1)]
    packets[1] = None  # the token of patches 1 and 2
    arrived = unpack(packets, KNOWN, Float32Codec(), placeholder(), "drop")
    batch = received_batch([arrived], sent)
    assert batch.merge_map.tolist() == [[1, DROPPED, DROPPED, 2, DROPPED, 3]]
    batch.check()


@pytest.fixture(scope="module")
def calibration():
    return crop_set("calibration").select(range(0, 280, 8))


def ready(victim, calibration, **options):
    pipeline = SplitPipeline(victim, CPU, cut=3, **options)
    pipeline.prepare(calibration, RNG.child("prepare"))
    return pipeline


def test_a_packet_channel_without_loss_delivers_what_the_ideal_channel_delivers(victim, photographs, calibration):
    ideal = ready(victim, calibration, reduction=MERGE, codec="float16").transmit(photographs, RNG)
    lossless = ready(
        victim, calibration, reduction=MERGE, codec="float16", channel={"name": "erasure", "loss": 0.0}
    ).transmit(photographs, RNG)
    assert torch.equal(ideal.received.tokens, lossless.received.tokens)
    assert torch.equal(ideal.received.sizes, lossless.received.sizes)
    assert torch.equal(ideal.received.merge_map, lossless.received.merge_map)
    assert int(lossless.lost.sum()) == 0
    # Self-contained packets cost their headers.
    several = torch.tensor([len(own) > 1 for own in lossless.encoded.packets])
    assert torch.equal(lossless.encoded.payload_bytes > ideal.encoded.payload_bytes, several)
    assert bool(several.any())
    for own, size in zip(lossless.encoded.packets, lossless.encoded.payload_bytes.tolist(), strict=True):
        assert sum(len(packet) for packet in own) == size


@pytest.mark.parametrize("on_loss", ["drop", "mean"])
def test_the_server_answers_whatever_is_lost(victim, photographs, calibration, on_loss):
    right = []
    for loss in (0.0, 0.3, 1.0):
        pipeline = ready(
            victim, calibration, codec="float16", on_loss=on_loss, channel={"name": "erasure", "loss": loss}
        )
        transmission = pipeline.transmit(photographs, RNG)
        output = pipeline.respond(transmission)
        assert bool(torch.isfinite(output).all())
        right.append(float((output.argmax(1) == photographs.labels).float().mean()))
        share = float(transmission.lost.sum()) / (65 * 32)
        assert share == pytest.approx(loss, abs=0.12)
    assert right[0] > 0.7 > right[2]
    assert right[0] >= right[1] >= right[2]


def test_loss_is_drawn_for_each_image_alone(victim, photographs, calibration):
    options = {"codec": "float16", "channel": {"name": "erasure", "loss": 0.4}}
    together = ready(victim, calibration, **options).transmit(photographs, RNG)
    alone = ready(victim, calibration, **options).transmit(photographs.select([7]), RNG)
    assert torch.equal(alone.received.merge_map[0], together.received.merge_map[7])


def test_the_abstraction_and_the_bit_true_link_agree_where_nothing_is_left_to_chance(victim, photographs, calibration):
    images = photographs.select(range(2))
    for snr_db, lost_share in ((30.0, 0.0), (-20.0, 1.0)):
        found = []
        for bit_true in (False, True):
            channel = {"name": "digital", "snr_db": snr_db, "bit_true": bit_true, "mcs": "qpsk_1_2"}
            pipeline = ready(
                victim, calibration, reduction=MERGE, codec={"name": "uniform", "bits": 4}, channel=channel
            )
            found.append(pipeline.transmit(images, RNG))
        assert torch.equal(found[0].lost, found[1].lost)
        assert torch.equal(found[0].channel_uses, found[1].channel_uses)
        assert torch.equal(found[0].received.tokens, found[1].received.tokens)
        assert bool((found[0].lost == round(lost_share) * found[0].encoded.decoded.lengths).all())


def test_modulation_and_coding_follow_the_snr():
    efficiency = [DigitalChannel(snr_db=snr).mcs.efficiency for snr in (-10, 0, 3, 8, 12, 20)]
    assert efficiency == sorted(efficiency)
    assert efficiency[0] < 1
    assert efficiency[-1] > 3
    assert DigitalChannel(snr_db=20, mcs="qpsk_1_3").mcs.name == "qpsk_1_3"


def test_an_eavesdropper_hears_the_same_packets_through_its_own_channel(victim, photographs, calibration):
    pipeline = ready(victim, calibration, codec="float16", channel={"name": "digital", "snr_db": 20})
    encoded = pipeline.encode(photographs, RNG.child("encode"))
    server = pipeline.send(encoded, RNG.child("channel"))
    heard = pipeline.send(encoded, RNG.child("eve"), DigitalChannel(snr_db=-5, mcs=pipeline.channel.mcs.name))
    assert int(server.lost.sum()) == 0
    assert torch.equal(heard.lost, encoded.decoded.lengths)
    assert torch.equal(heard.channel_uses, server.channel_uses)


def test_packets_need_preparation(victim, photographs):
    pipeline = SplitPipeline(victim, CPU, cut=3, channel={"name": "erasure", "loss": 0.1})
    with pytest.raises(PluginError, match="prepare"):
        pipeline.transmit(photographs, RNG)


@pytest.mark.parametrize(
    "options",
    [
        {"packet_tokens": 0},
        {"on_loss": "repeat"},
        {"perturb": "shuffle"},
        {"channel": {"name": "erasure", "loss": 1.5}},
        {"channel": {"name": "digital", "snr_db": 3, "mcs": "qam1024"}},
        {"channel": {"name": "digital", "snr_db": 3, "target_bler": 0}},
        {"channel": {"name": "fading", "snr_db": 3, "kind": "nakagami"}},
        {"channel": {"name": "fading", "snr_db": float("nan")}},
    ],
)
def test_options_out_of_range_are_refused(victim, options):
    with pytest.raises(ConfigError):
        create("defenses", "split_pipeline", {"victim": victim, "device": CPU, **options})


def test_an_erasure_channel_loses_what_it_says():
    packets = tuple((b"x" * 5,) * 50 for _ in range(100))
    delivered = ErasureChannel(0.2).carry(packets, tuple(map(str, range(100))), RNG)
    lost = sum(packet is None for own in delivered.packets for packet in own)
    assert lost / 5000 == pytest.approx(0.2, abs=4 * (0.16 / 5000) ** 0.5)
    assert delivered.channel_uses.tolist() == [50 * 5 * 8] * 100
