"""SimpleDefense: two functions of a third party, and our link between them: codecs, lost packets, gradients."""

import pytest
import torch
from toy_task import Toy

from leakgauge.defenses.simple import SimpleDefense
from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.suite.options import Count, check_options
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.seeding import Streams

RNG = Streams(0, ("transmission",))
CPU = torch.device("cpu")


class Quarters(SimpleDefense):
    """Sends the mean colour of each quarter, scaled."""

    grid = (2, 2)

    def __init__(self, scale: Count = 1, **given):
        super().__init__(**given)
        self.scale = scale

    def edge(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(2).transpose(1, 2) * self.scale

    def server(self, tokens):
        return tokens.mean(dim=1)


@pytest.fixture(scope="module")
def images():
    return Toy().split("evaluation").select(range(6))


def built(**options):
    return Quarters(victim=Toy().victim(), device=CPU, **options)


def test_what_arrives_is_what_the_edge_made(images):
    defense = built(scale=3)
    sent = defense.transmit(images, RNG)
    batch = sent.received
    assert batch.lengths.tolist() == [4] * 6
    assert batch.merge_map.tolist() == [[0, 1, 2, 3]] * 6
    batch.check()
    assert torch.equal(batch.tokens.reshape(6, 4, 3), defense.edge(images.images()))
    assert torch.allclose(defense.respond(sent), 3 * images.images().mean(dim=(2, 3)), atol=1e-5)
    assert (sent.encoded.payload_bytes - sent.encoded.side_bytes).tolist() == [4 * 3 * 4] * 6


def test_an_image_does_not_depend_on_its_batch_mates(images):
    defense = built(channel={"name": "awgn", "snr_db": 10})
    together = defense.transmit(images, RNG).received.select([2]).tokens
    assert torch.allclose(defense.transmit(images.select([2]), RNG).received.tokens, together)


def test_codecs_and_lost_packets_follow(images):
    assert not built().needs_calibration
    defense = built(codec="float16", channel={"name": "erasure", "loss": 0.5})
    assert defense.needs_calibration
    defense.prepare(Toy().split("calibration"), Streams(0))
    sent = defense.transmit(images, RNG)
    assert sent.lost is not None
    assert set(sent.lost.tolist()) == {0, 4}, "an image's only packet arrives or is lost"
    whole = sent.lost == 0
    values = sent.received.tokens.reshape(6, 4, 3)
    assert torch.allclose(values[whole], defense.edge(images.images())[whole], atol=1e-3)
    usual = defense.edge(Toy().split("calibration").images()).mean(dim=0)
    assert torch.allclose(values[~whole], usual.expand_as(values[~whole]), atol=1e-5), "the mean tokens stand in"
    sent.received.check()
    assert defense.respond(sent).isfinite().all()
    assert (sent.encoded.payload_bytes - sent.encoded.side_bytes).tolist() == [4 * 3 * 2] * 6


def test_an_eavesdropper_has_a_channel_of_its_own(images):
    defense = built()
    encoded = defense.encode(images, RNG)
    noisy = create("channels", "awgn", {"snr_db": 0})
    assert not torch.equal(defense.send(encoded, RNG, noisy).received.tokens, encoded.decoded.tokens)


def test_gradients_reach_the_images(images):
    pixels = images.images().requires_grad_()
    built().edge_tokens(pixels).tokens.sum().backward()
    assert pixels.grad is not None
    assert (pixels.grad > 0).all()


def test_tokens_that_do_not_fit_the_grid_are_refused(images):
    class Odd(Quarters):
        grid = (2, 3)

    with pytest.raises(
        PluginError, match=r"defense 'Odd': edge returned \(6, 4, 3\) for 6 images and the grid \(2, 3\)"
    ):
        Odd(victim=Toy().victim(), device=CPU).encode(images, RNG)


def test_options_of_its_own_are_checked_beside_ours():
    options = {"scale": 2, "codec": "float16"}
    assert check_options(Quarters, options, "defense", ("victim", "device")) == options
    with pytest.raises(ConfigError, match="scale = 0 is not a whole number of at least 1"):
        check_options(Quarters, {"scale": 0}, "defense", ("victim", "device"))
    with pytest.raises(ConfigError, match="unknown channel 'pigeon'"):
        built(channel="pigeon")
