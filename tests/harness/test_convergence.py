"""An attacker is conclusive only where it is measured to be as strong as its method allows."""

import math

import pytest
import torch
from torch import nn

from leakgauge.harness.contracts.attack import Attack
from leakgauge.harness.errors import PluginError
from leakgauge.harness.measurement.convergence import (
    ACCURACY,
    Gradients,
    PartOfView,
    Unconverged,
    data_limited,
    unconverged,
    watched,
)
from leakgauge.harness.measurement.exposure import hidden_layout
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import (
    UNKNOWN_GAIN_DB,
    CurvePoint,
    LearningCurve,
    could_gain_db,
    remaining_gain_db,
)
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import DROPPED, TokenBatch

RNG = Streams(0)
QUIET = Gradients()


def images(count, seed=0):
    pixels = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return ImageSet.from_pixels(pixels)


class Plain:
    """A view whose observation of an image is its pixels, a token a patch of 2 x 2."""

    image_shape, grid, device, noisy = (3, 4, 4), (2, 2), torch.device("cpu"), False

    def __init__(self):
        self.asked = []

    def observe(self, images, draw=0):
        self.asked.append(len(images))
        patches = images.images().unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
        return Observation(patches, torch.full((len(images),), 4), 0, (2, 2))


class Linear(Attack):
    """A third party's linear layer, trained by 40 steps of Adam, without a word of what it is."""

    name = "linear"

    def fit(self, view, auxiliary, rng):
        self.layer = nn.Linear(12, 12)
        optimiser = torch.optim.Adam(self.layer.parameters())
        tokens = view.observe(auxiliary).tokens
        for _ in range(40):
            loss = (self.layer(tokens) - tokens).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    def reconstruct(self, observations, rng):
        raise NotImplementedError


class ByHand(Linear):
    """The same without an optimiser."""

    training = "closed_form"

    def fit(self, view, auxiliary, rng):
        weight, tokens = torch.zeros(12, 12, requires_grad=True), view.observe(auxiliary).tokens
        for _ in range(40):
            (gradient,) = torch.autograd.grad((tokens @ weight - tokens).square().mean(), weight)
            weight = (weight - 0.1 * gradient).detach().requires_grad_(True)


class Solved(Linear):
    training = "closed_form"

    def fit(self, view, auxiliary, rng):
        tokens = view.observe(auxiliary).tokens
        self.weight = torch.linalg.lstsq(tokens, tokens).solution


class Searches(Linear):
    training = "search"

    def fit(self, view, auxiliary, rng):
        pass


def fitted(attack):
    with watched() as gradients:
        attack.fit(Plain(), images(8), RNG)
    return attack, gradients


def test_forty_steps_of_adam_are_not_conclusive_whatever_they_are_called():
    honest, gradients = fitted(Linear())
    assert "no learning curve" in unconverged(honest, None, gradients, lambda: None).why
    honest.training = "closed_form"
    assert "40 optimiser steps" in unconverged(honest, None, gradients, lambda: None).why
    assert "followed gradients" in unconverged(*_split(fitted(ByHand())), lambda: None).why
    honest.training = "search"
    assert "never said" in unconverged(honest, None, gradients, lambda: None).why


def _split(found):
    return found[0], None, found[1]


def test_a_closed_form_is_measured_and_floors_are_not():
    attack, gradients = fitted(Solved())
    assert gradients == QUIET
    asked = []
    assert unconverged(attack, None, gradients, lambda: asked.append(1)) is None
    assert asked == [1]
    lacking = Unconverged("limited by its data", 1.5)
    assert unconverged(attack, None, gradients, lambda: lacking) == lacking
    attack.floor = True
    assert unconverged(attack, None, gradients, lambda: lacking) is None


def test_a_search_must_say_whether_it_was_cut_short():
    attack = Searches()
    assert "never said" in unconverged(attack, None, QUIET, lambda: None).why
    attack.caveat = None
    assert unconverged(attack, None, QUIET, lambda: None) is None
    attack.caveat = "cut short"
    assert unconverged(attack, None, QUIET, lambda: None) == Unconverged("cut short", None)


def test_the_least_budget_is_the_plug_in_s():
    curve = LearningCurve(120, [CurvePoint(24 * i, 0.1, 20.0) for i in range(1, 6)])
    curve.compare(CurvePoint(60, 0.1, 19.72), CurvePoint(30, 0.1, 19.6))
    attack = Linear()
    assert "fewer than 500" in unconverged(attack, curve, QUIET, lambda: None).why
    attack.least_steps = 100
    assert unconverged(attack, curve, QUIET, lambda: None) is None


def scored(gain):
    """An attacker whose score grows by ``gain`` with every doubling of its images."""

    def score(attack, view, part, held):
        return torch.full((len(held),), gain * float(torch.log2(torch.tensor(float(len(part))))))

    return score


@pytest.mark.parametrize(("gain", "limited"), [(0.1, False), (0.35, True), (float("nan"), True)])
def test_what_the_second_half_of_the_images_gains_decides(gain, limited):
    found = data_limited(scored(gain), Solved, Plain(), images(100), RNG)
    assert (found is not None) == limited
    if limited:
        assert "limited by its data" in found.why
        # Three times what the second half brought; of no number nothing is known.
        assert found.could_gain_db == (None if math.isnan(gain) else pytest.approx(3 * gain, rel=1e-3))


def test_what_a_probe_may_gain_is_no_number_of_decibels():
    found = data_limited(scored(0.2), Solved, Plain(), images(100), RNG, allowed=ACCURACY, unit="right")
    assert "+20." in found.why
    assert found.could_gain_db is None


@pytest.mark.parametrize(
    ("last", "earlier", "remaining"),
    [
        (1.0, 2.0, 1.0),
        (1.0, 1.5, 2.0),
        (1.0, 4.0, 1.0),  # no less than the last gained
        (1.0, 1.1, 3.0),  # nor more than three times that
        (1.0, None, 3.0),
        (1.0, -0.5, 3.0),
        (-0.2, 1.0, 0.0),
    ],
)
def test_what_is_yet_to_come_follows_the_last_two_doublings(last, earlier, remaining):
    assert remaining_gain_db(last, earlier) == pytest.approx(remaining)


def curve_of(half, quarter=None, steps=1000, late=0.0, planned=None):
    """A curve that ends at 20 dB, where trainings of half and a quarter of the steps ended at ``half``, ``quarter``."""
    psnr = [19.0, 20.0 - late, 20.0 - late, 20.0 - late, 20.0]
    points = [CurvePoint(steps * (i + 1) // 5, 0.1, value) for i, value in enumerate(psnr)]
    curve = LearningCurve(planned or steps, points)
    if half is not None:
        curve.compare(CurvePoint(steps // 2, 0.1, half), quarter and CurvePoint(steps // 4, 0.1, quarter))
    return curve


def test_a_curve_says_what_it_may_still_gain():
    assert could_gain_db(curve_of(19.4, 18.2), 500) == pytest.approx(0.6)
    assert could_gain_db(curve_of(19.4), 500) == pytest.approx(1.8), "one doubling: three times what it gained"
    assert could_gain_db(curve_of(19.9, 19.0, late=0.8), 500) == pytest.approx(0.8), "it still rises by as much"
    attack = Linear()
    lacking = unconverged(attack, curve_of(19.4, 18.2), QUIET, lambda: None)
    assert (lacking.why, lacking.could_gain_db) == ("twice the steps gain +0.60 dB", pytest.approx(0.6))


def test_where_gains_need_not_shrink_only_a_large_one_is_told():
    """Too few steps, a training that was stopped, doublings that were not measured: a small gain says nothing."""
    assert could_gain_db(curve_of(19.9, 19.8, steps=100), 500) is None
    assert could_gain_db(curve_of(19.9, 19.8, planned=2000), 500) is None
    assert could_gain_db(curve_of(None), 500) is None
    assert could_gain_db(LearningCurve(1000), 500) is None
    assert could_gain_db(curve_of(18.0, 17.0, steps=100), 500) == pytest.approx(2 * UNKNOWN_GAIN_DB)
    assert could_gain_db(curve_of(None, late=4.0), 500) == pytest.approx(4.0)


def test_the_refit_asks_the_edge_for_nothing_new():
    view, own = Plain(), images(100)

    def score(attack, part_view, part, held):
        attack.fit(part_view, part, RNG)
        seen = part_view.observe(part)
        assert torch.equal(seen.tokens, Plain().observe(part).tokens)
        assert not set(part.ids) & set(own.select(held).ids)
        return torch.zeros(len(held))

    assert data_limited(score, Solved, view, own, RNG) is None
    assert set(view.asked) == {100}


def test_images_that_only_claim_to_be_known_are_sent():
    view, own = Plain(), images(10)
    other = ImageSet(255 - own.pixels[:3], own.ids[:3])
    assert torch.equal(PartOfView(view, own).observe(other).tokens, Plain().observe(other).tokens)


def test_too_few_images_and_a_failing_refit_prove_nothing():
    assert "too few" in data_limited(scored(0), Solved, Plain(), images(4), RNG).why

    def broken(*_):
        raise PluginError("no")

    assert "could not be fitted" in data_limited(broken, Solved, Plain(), images(100), RNG).why


def batch_of(merge_map, lengths, prefix=1):
    lengths = torch.tensor(lengths)
    total = int(lengths.sum())
    return TokenBatch(
        torch.zeros(total, 2), lengths, torch.ones(total, dtype=torch.long), torch.tensor(merge_map), prefix
    )


@pytest.mark.parametrize(
    ("merge_map", "lengths", "hidden"),
    [
        ([[1, 2], [1, 2]], [3, 3], False),
        ([[1, 2], [1, 1]], [3, 2], True),
        ([[1, 2], [2, 1]], [3, 3], True),
        ([[1, 2], [1, DROPPED]], [3, 2], True),
        ([[1, 2], [1, 2]], [3, 4], True),
    ],
    ids=["in order", "merged", "moved", "dropped", "padded"],
)
def test_the_layout_is_hidden_where_tokens_do_not_lie_where_they_belong(merge_map, lengths, hidden):
    batch = batch_of(merge_map, lengths)
    assert bool(hidden_layout(batch, ThreatModel())) == hidden
    assert hidden_layout(batch, ThreatModel(knows={"merge_map": True})) == ""
    assert "order" in hidden_layout(batch, ThreatModel(knows={"order": False}))


def test_the_refit_never_fits_what_it_scores():
    pictures, fits = images(100), []

    def score(attack, view, part, held):
        fits.append((set(part.ids), held))
        return torch.zeros(len(held))

    data_limited(score, Solved, Plain(), pictures, RNG)
    (whole, held), (half, also_held) = fits
    assert torch.equal(held, also_held)
    assert whole.isdisjoint(pictures.ids[i] for i in held.tolist())
    assert half < whole
    assert len(half) == -(-len(whole) // 2)
