"""What spares the author of a plug-in work: labelled tasks, channels image by image, kept tokens, names."""

import pytest
import torch
from torch import nn
from toy_task import register

from leakgauge.harness.contracts.link import PerImageChannel
from leakgauge.harness.contracts.reduction import Assignment, LayerState
from leakgauge.harness.contracts.task import LabelledTask
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import DataError, PluginError
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.images import SPLITS, ImageSet
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import DROPPED, TokenBatch


class Digits(LabelledTask):
    """Forty noisy images of two classes."""

    name = "digits"
    count, labelled = 40, True

    def images(self):
        pixels = torch.randint(0, 255, (self.count, 3, 8, 8), generator=torch.Generator().manual_seed(0))
        labels = torch.arange(self.count) % 2
        return ImageSet.from_pixels(pixels.to(torch.uint8), labels if self.labelled else None)

    def model(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2), nn.Dropout())


def test_labelled_images_are_divided_in_their_order():
    task = Digits()
    sets = [task.split(name) for name in SPLITS]
    assert [len(one) for one in sets] == [24, 4, 4, 8]
    assert tuple(i for one in sets for i in one.ids) == task.images().ids
    assert task.reading().classes == {"0": {**dict(zip(SPLITS, (12, 2, 2, 4), strict=True))}} | {
        "1": {**dict(zip(SPLITS, (12, 2, 2, 4), strict=True))}
    }
    assert task.input_px() == 8
    assert (task.version, task.quality_name) == (1, "top-1 accuracy")


def test_quality_is_top_1_accuracy():
    task, images = Digits(), Digits().split("evaluation")
    output = torch.eye(2)[images.labels]
    assert task.quality(output, task.target(images)).tolist() == [1.0] * 8
    assert task.quality(output.flip(1), task.target(images)).tolist() == [0.0] * 8


def test_the_victim_is_the_same_every_time_and_moves_no_random_number():
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    first, second = Digits().victim(), Digits().victim()
    assert torch.equal(torch.rand(1), before)
    assert first.weights_hash == second.weights_hash
    assert not first.model.training
    pixels = torch.rand(2, 3, 8, 8)
    assert torch.equal(first.predict(pixels), second.predict(pixels))


def test_the_hash_is_of_all_that_decides_the_answers():
    def hashed(model, mean=0.5):
        return Victim.of(model, (mean,) * 3, (0.5,) * 3).weights_hash

    layer = nn.Linear(2, 2)
    other = nn.Linear(2, 2)
    other.load_state_dict(layer.state_dict())
    assert hashed(layer) == hashed(other)
    with torch.no_grad():
        other.bias[0] += 1e-6
    assert len({hashed(layer), hashed(other), hashed(layer, 0.4), hashed(nn.Sequential(layer))}) == 4
    assert len(hashed(nn.BatchNorm1d(3))) == 16, "of tensors without dimensions too"


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"labelled": False}, "images carry no labels"), ({"count": 9}, "9 images leave a split empty")],
)
def test_a_set_that_makes_no_task_is_refused(fields, message):
    with pytest.raises(DataError, match=f"task 'digits': {message}"):
        type("Short", (Digits,), fields)().split("evaluation")


class Noise(PerImageChannel):
    name = "noise"

    def disturb(self, tokens, rng):
        return tokens + torch.randn(tokens.shape, generator=rng.torch())


def test_a_channel_by_image_never_mixes_images():
    sent = TokenBatch.from_uniform(torch.zeros(3, 5, 3), prefix=1)
    whole = Noise().apply(sent, ("a", "b", "c"), Streams(1))
    alone = Noise().apply(sent.select([1]), ("b",), Streams(1))
    assert torch.equal(whole.tokens.select([1]).tokens, alone.tokens.tokens)
    assert not torch.equal(whole.tokens.select([0]).tokens, alone.tokens.tokens)
    assert whole.channel_uses.tolist() == [10, 10, 10], "a symbol holds two values"
    assert whole.state is None
    assert Noise.random


def state(lengths, prefix):
    total = sum(lengths)
    ids = tuple(map(str, lengths))
    return LayerState(torch.zeros(total, 2), torch.ones(total), None, torch.tensor(lengths), prefix, 0, ids, 1, 1)


def test_places_count_patch_tokens_from_0():
    assert state([4, 3], prefix=1).place.tolist() == [-1, 0, 1, 2, -1, 0, 1]


def test_kept_tokens_close_ranks_and_protected_ones_stay():
    here = state([4, 3], prefix=1)
    kept = here.keep(here.place == 1)
    assert kept is not None
    assert kept.destination.tolist() == [0, DROPPED, 1, DROPPED, 2, DROPPED, 3]
    assert kept.lengths.tolist() == [2, 2]
    assert here.keep(here.place >= 0) is None, "all are kept"
    assert Assignment.keeping(here.lengths, torch.ones(7, dtype=torch.bool)) is None


class Nameless(PerImageChannel):
    def disturb(self, tokens, rng):
        return tokens


class Closed(Nameless):
    def __setattr__(self, key, value):
        raise AttributeError(key)


def test_a_name_that_is_not_stated_is_that_of_the_entry_point(monkeypatch):
    register(
        monkeypatch,
        channels_plain="test_short_contracts:Nameless",
        channels_closed="test_short_contracts:Closed",
    )
    assert create("channels", "plain", {}).name == "plain"
    assert not hasattr(Nameless, "name")
    with pytest.raises(PluginError, match="name is not stated"):
        create("channels", "closed", {})
