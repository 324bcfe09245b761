"""Attacks that optimise: they rebuild what unreduced tokens give away, image by image, and never ask the target."""

from types import SimpleNamespace

import pytest
import torch
from tiny_edge import BLIND, MERGED, RNG, pictures, seen_of, tiny_victim, view_of

from leakgauge.attacks.deep_image_prior import DeepImagePrior
from leakgauge.attacks.diffusion import Diffusion
from leakgauge.attacks.networks.denoiser import folding
from leakgauge.attacks.networks.skip_network import SkipNetwork
from leakgauge.attacks.networks.substitute import merged_like, mmd
from leakgauge.attacks.rmle import RegularisedMLE
from leakgauge.attacks.surrogate import Surrogate, without_prefix
from leakgauge.attacks.training.loop import mean_psnr_db
from leakgauge.attacks.white_box.descent import Descent, left_over
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.measurement.attack_run import AttackRun
from leakgauge.harness.scoring.metrics import ImageScores
from leakgauge.harness.suite.registry import create
from leakgauge.harness.suite.schema import PluginConfig
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.observation import Observation


@pytest.fixture(scope="module")
def victim():
    return tiny_victim()


@pytest.fixture(scope="module")
def images():
    return pictures(4, "evaluation")


@pytest.fixture(scope="module")
def auxiliary():
    return pictures(96, "auxiliary")


QUICK = {
    "rmle": lambda **o: RegularisedMLE(**{"iterations": 40, "restarts": 2, "start": "mean", **o}),
    "deep_image_prior": lambda **o: DeepImagePrior(**{"iterations": 25, "widths": (8, 16), **o}),
    "diffusion": lambda **o: Diffusion(
        **{
            "training_steps": 5,
            "training_batch": 8,
            "width": 8,
            "sampling_steps": 6,
            "guiding_steps": 3,
            "samples": 2,
            **o,
        }
    ),
}
SLOWEST = "diffusion"
every_attack = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == SLOWEST else name for name in QUICK]
)


def fitted(name, victim, auxiliary, model=None, **options):
    attack = QUICK[name]()
    view = view_of(victim, **options) if model is None else view_of(victim, model, **options)
    attack.fit(view, auxiliary, RNG.child("fit"))
    return attack


@pytest.mark.parametrize("start", ["noise", "mean", "ridge"])
def test_rmle_recovers_images_from_unreduced_tokens(victim, images, auxiliary, start):
    attack = RegularisedMLE(iterations=250, restarts=2, start=start, total_variation=0.0, patch_prior=0.0)
    attack.fit(view_of(victim), auxiliary, RNG.child("fit"))
    rebuilt = attack.reconstruct(seen_of(victim, images), RNG.child("reconstruct"))
    mean = auxiliary.images().mean(dim=0).expand(4, -1, -1, -1)
    assert mean_psnr_db(rebuilt, images.images()) > mean_psnr_db(mean, images.images()) + 12


def test_the_deep_image_prior_recovers_images_without_data(victim, images, auxiliary):
    attack = DeepImagePrior(iterations=150, widths=(16, 32))
    attack.fit(view_of(victim), auxiliary.select([]), RNG.child("fit"))
    rebuilt = attack.reconstruct(seen_of(victim, images), RNG.child("reconstruct"))
    grey = torch.full_like(images.images(), 0.5)
    assert mean_psnr_db(rebuilt, images.images()) > mean_psnr_db(grey, images.images()) + 6


def test_guidance_leads_the_diffusion_to_the_image(victim, images, auxiliary):
    attack = Diffusion(training_steps=60, training_batch=16, width=8, sampling_steps=10, guiding_steps=30, samples=1)
    curve = attack.fit(view_of(victim), auxiliary, RNG.child("fit"))
    assert curve.points[-1].step == 60
    assert curve.points[-1].heldout_psnr_db > curve.points[0].heldout_psnr_db
    rebuilt = attack.reconstruct(seen_of(victim, images), RNG.child("reconstruct"))
    mean = auxiliary.images().mean(dim=0).expand(4, -1, -1, -1)
    assert mean_psnr_db(rebuilt, images.images()) > mean_psnr_db(mean, images.images()) + 6


def test_the_prior_alone_ignores_the_observation(victim, images, auxiliary):
    control = QUICK["diffusion"](guidance=0)
    control.fit(SimpleNamespace(image_shape=(3, 16, 16), grid=(4, 4), device=torch.device("cpu")), auxiliary, RNG)
    one = control.reconstruct(seen_of(victim, images), RNG)
    assert torch.equal(one, control.reconstruct(seen_of(victim, pictures(4, "others"), **MERGED), RNG))
    assert torch.equal(one[0], one[3])


@every_attack
def test_the_same_streams_give_the_same_images(victim, images, auxiliary, name):
    seen, rebuilt = seen_of(victim, images, **MERGED), []
    for _ in range(2):
        rebuilt.append(fitted(name, victim, auxiliary, **MERGED).reconstruct(seen, RNG))
        torch.rand(3)
    assert torch.equal(*rebuilt)
    other = fitted(name, victim, auxiliary, **MERGED).reconstruct(seen, RNG.child("other"))
    if name != "rmle":  # which may keep the restart without noise
        assert not torch.equal(other, rebuilt[0])


@every_attack
def test_an_image_does_not_depend_on_its_batch_mates(victim, images, auxiliary, name):
    attack, seen = fitted(name, victim, auxiliary, **MERGED), seen_of(victim, images, **MERGED)
    assert len(set(seen.lengths.tolist())) > 1
    together = attack.reconstruct(seen, RNG)
    alone = torch.cat([attack.reconstruct(seen.select([i]), RNG) for i in (2, 0)])
    assert torch.allclose(alone, together[[2, 0]], atol=2e-2)
    assert float((alone - together[[2, 0]]).abs().mean()) < 1e-3


@every_attack
def test_without_order_the_order_does_not_matter(victim, images, auxiliary, name):
    attack = fitted(name, victim, auxiliary, BLIND, **MERGED)
    one, other = (seen_of(victim, images, BLIND, RNG.child(draw), **MERGED) for draw in "ab")
    assert not torch.equal(one.tokens, other.tokens)
    first, second = attack.reconstruct(one, RNG), attack.reconstruct(other, RNG)
    assert torch.allclose(first, second, atol=2e-2)
    assert float((first - second).abs().mean()) < 1e-3


@every_attack
def test_reconstructions_do_not_see_what_they_are_scored_on(victim, images, auxiliary, name):
    scores, rebuilt = [], []
    for targets in (images, images.select([3, 0, 1, 2])):
        # The harness's own attempt, of which the context alone holds what is scored against.
        context = SimpleNamespace(
            evaluation=targets,
            gallery=targets.images().flatten(1),
            features=lambda pixels: pixels.float().flatten(1),
            look=lambda pixels: (pixels.float().flatten(1), torch.zeros(len(pixels))),
            top1=None,
            judging=SimpleNamespace(scores=lambda pixels: ImageScores({}, {})),
            suite=SimpleNamespace(metrics=[PluginConfig(name="psnr_db")], baseline_point="undefended", seeds=[0]),
            device=torch.device("cpu"),
        )
        cell = SimpleNamespace(key="cell", exposure=SimpleNamespace(point=SimpleNamespace(name="undefended")))
        seen, view, head = seen_of(victim, images), view_of(victim), SimpleNamespace()
        attempt = AttackRun(context, cell, seen, view, auxiliary, RNG, head)
        found = attempt.reconstruction(QUICK[name]())
        rebuilt.append(found.images)
        scores.append(sum(found.record.scores["psnr_db"]))
    assert (rebuilt[0] == rebuilt[1]).all()
    assert scores[0] > scores[1]


def test_a_search_cut_short_is_doubted(victim, images, auxiliary):
    short = RegularisedMLE(iterations=20, restarts=1, start="noise", learning_rate=0.005)
    short.fit(view_of(victim), auxiliary, RNG)
    assert short.caveat is None
    short.reconstruct(seen_of(victim, images), RNG)
    assert "still lowered" in short.caveat


@pytest.mark.parametrize("model", [None, BLIND], ids=["order", "no order"])
def test_the_surrogate_never_asks_the_edge(victim, images, auxiliary, model):
    class Closed:
        """Offers the shapes that everyone knows, and refuses everything else."""

        image_shape, grid, device = (3, 16, 16), (4, 4), torch.device("cpu")

        def __getattr__(self, name):
            raise AssertionError(f"the attack asked for {name}")

    attack = Surrogate(steps=12, batch_size=8, width=16, layers=1)
    assert attack.knowledge.victim == "none"
    attack.fit(Closed(), auxiliary, RNG)
    seen = seen_of(victim, images, **MERGED) if model is None else seen_of(victim, images, model, **MERGED)
    rebuilt = attack.reconstruct(seen, RNG)
    assert rebuilt.shape == (4, 3, 16, 16)
    assert "12 optimiser steps" in attack.caveat
    assert torch.equal(rebuilt, attack.reconstruct(seen, RNG))


def test_discrepancy_is_zero_for_one_sample_and_grows_with_the_shift():
    sample = torch.randn(200, 6, generator=RNG.child("sample").torch())
    assert float(mmd(sample, sample)) == pytest.approx(0.0, abs=1e-6)
    assert 0 < float(mmd(sample, sample + 0.5)) < float(mmd(sample, sample + 1.0))


def test_the_guess_at_a_reduction_leaves_the_counts_asked_for_and_keeps_the_mean():
    tokens = torch.randn(3, 16, 5, generator=RNG.child("tokens").torch())
    lengths = torch.tensor([16, 1, 7])
    packed, sizes = merged_like(tokens, lengths, RNG.torch())
    assert torch.equal(packed[:16], tokens[0])
    assert torch.allclose(packed[16], tokens[1].mean(dim=0), atol=1e-6)
    assert len(packed) == 24
    assert int(sizes[17:].sum()) == 16
    assert torch.allclose((packed[17:] * sizes[17:, None]).sum(dim=0), tokens[2].sum(dim=0), atol=1e-5)


def test_protected_tokens_are_taken_off_where_they_are_known():
    seen = Observation(torch.arange(5.0)[:, None], torch.tensor([3, 2]), 1, (2, 2), sizes=torch.tensor([1, 3, 1, 1, 4]))
    patches = without_prefix(seen)
    assert patches.tokens.flatten().tolist() == [1, 2, 4]
    assert patches.sizes.tolist() == [3, 1, 4]
    assert (patches.lengths.tolist(), patches.prefix) == ([2, 1], 0)
    unplaced = Observation(seen.tokens, seen.lengths, 0, (2, 2), ordered=False)
    assert without_prefix(unplaced) is unplaced


def test_networks_of_many_images_do_not_mix():
    network = SkipNetwork(3, (3, 16, 16), (4, 8), 2, RNG)
    before = network().detach()
    assert torch.allclose(before[0], before[2], atol=1e-6)
    (gradient,) = torch.autograd.grad(network()[1].square().sum(), [network.paint.weight])
    assert bool((gradient[[0, 2]] == 0).all())
    assert bool((gradient[1] != 0).any())
    assert torch.allclose(SkipNetwork(1, (3, 16, 16), (4, 8), 2, RNG)().detach()[0], before[1], atol=1e-6)


def test_rates_are_held_and_then_annealed():
    rates = [Descent(100, 0.1).rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[10:50] == pytest.approx([0.1] * 40)
    assert rates[-1] < 1e-3


def test_pixels_are_folded_to_about_sixteen_columns():
    assert [folding((3, side, side)) for side in (16, 32, 64, 224)] == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rmle", {"start": "zero"}),
        ("rmle", {"distance": "l1"}),
        ("rmle", {"restarts": 0}),
        ("deep_image_prior", {"widths": []}),
        ("diffusion", {"width": 12}),
        ("diffusion", {"guidance": -1}),
    ],
)
def test_options_are_checked(name, options):
    with pytest.raises(ConfigError):
        create("attacks", name, options)


def test_a_search_with_a_guessed_assignment_is_doubted(victim, images, auxiliary):
    attack = RegularisedMLE(iterations=20, restarts=1, start="noise")
    attack.fit(view_of(victim, **MERGED), auxiliary, RNG)
    attack.reconstruct(seen_of(victim, images, **MERGED), RNG)
    assert "guessed" in attack.caveat


def test_a_settled_search_is_doubted_where_the_truth_explains_the_observation_better(victim, images, auxiliary):
    held_up = RegularisedMLE(iterations=60, restarts=1, start="mean", total_variation=200.0)
    held_up.fit(view_of(victim), auxiliary, RNG)
    held_up.reconstruct(seen_of(victim, images), RNG)
    assert "more is to be had" in held_up.caveat


def test_what_is_left_over_is_judged_by_the_truth_of_own_images(victim, images, auxiliary):
    view = view_of(victim)
    attack = RegularisedMLE(iterations=10, restarts=1)
    attack.fit(view, auxiliary, RNG)
    truth = attack._truth
    assert bool((truth > 0).all()), "a picture holds the truth to a grey level"
    assert left_over(truth, truth) is None
    assert "more is to be had" in left_over(1.2 * truth, truth)
    assert "more is to be had" in left_over(torch.full_like(truth, torch.nan), truth)
    grey = ImageSet.from_pixels(torch.full_like(auxiliary.pixels, 128))
    seen, matching = (
        view.observe(auxiliary.select(range(4))),
        attack._matching(view.observe(auxiliary.select(range(4)))),
    )
    lost = matching.loss(matching.units(view.edge_tokens(grey.select(range(4)).images()).tokens)).detach()
    assert len(seen) == 4
    assert float(lost.mean()) > 10 * float(truth.mean())


@pytest.mark.parametrize(
    "attack", [DeepImagePrior(iterations=10, widths=(8,)), Diffusion(training_steps=4, width=8, sampling_steps=2)]
)
def test_every_search_says_what_is_left_over(victim, images, auxiliary, attack):
    attack.fit(view_of(victim), auxiliary, RNG)
    attack.reconstruct(seen_of(victim, images), RNG)
    assert attack.caveat


def test_the_prior_alone_says_that_it_looks_at_nothing(victim, images, auxiliary):
    attack = Diffusion(training_steps=4, width=8, sampling_steps=2, guidance=0)
    attack.fit(view_of(victim), auxiliary, RNG)
    attack.reconstruct(seen_of(victim, images), RNG)
    assert "prior alone" in attack.caveat
