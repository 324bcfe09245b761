"""Attacks on a pipeline small enough to know the answers."""

import pytest
import torch
from photo_views import CPU, RNG, few_images, seen_by_attacker, view_of

from leakgauge.attacks.conv_inverse import ConvInverse
from leakgauge.attacks.floors import ClassMeanFloor, MeanImageFloor, NearestImageFloor
from leakgauge.attacks.ridge import Ridge
from leakgauge.attacks.set_decoder import SetDecoder
from leakgauge.attacks.training.layout import from_patches, on_grid, patches_of
from leakgauge.attacks.training.loop import Schedule, hold_out, mean_psnr_db
from leakgauge.benchmarks.tasks.photo_crops.photos import crop_set
from leakgauge.harness.errors import AccessDeniedError, PluginError
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import plateau_failure
from leakgauge.harness.values.observation import Observation


@pytest.fixture(scope="module")
def auxiliary() -> ImageSet:
    return few_images()


def test_patches_and_images_are_inverse():
    images = torch.rand(2, 3, 12, 20)
    assert torch.equal(from_patches(patches_of(images, (3, 5)), (3, 5), 12, 20), images)


def test_tokens_are_laid_by_merge_map_or_in_received_order():
    tokens = torch.tensor([[0.0], [1], [2], [0], [5]])
    seen = Observation(tokens, torch.tensor([3, 2]), 1, (2, 2))
    assert on_grid(seen).squeeze(2).tolist() == [[1, 2, 0, 0], [5, 0, 0, 0]]
    merge_map = torch.tensor([[1, 2, 2, 1], [1, 1, -1, 1]])
    known = Observation(tokens, torch.tensor([3, 2]), 1, (2, 2), merge_map=merge_map)
    assert on_grid(known).squeeze(2).tolist() == [[1, 2, 2, 1], [5, 5, 0, 5]]


def test_ridge_recovers_a_linear_victim(auxiliary):
    class LinearView:
        image_shape, grid, device, noisy = (3, 64, 64), (8, 8), CPU, False

        def observe(self, images, draw=0):
            patches = patches_of(images.images(), (8, 8))
            tokens = torch.cat([torch.zeros(len(images), 1, 192), patches @ self.mixing], dim=1)
            return Observation(tokens.flatten(0, 1), torch.full((len(images),), 65), 1, (8, 8))

    view = LinearView()
    view.mixing = torch.linalg.qr(torch.randn(192, 192, generator=torch.Generator().manual_seed(0)))[0]
    attack = Ridge(penalty=1e-9)
    attack.fit(view, auxiliary, RNG)
    test = crop_set("evaluation").select(range(8))
    assert mean_psnr_db(attack.reconstruct(view.observe(test), RNG), test.images()) > 40


def test_ridge_on_the_real_victim_beats_the_mean(victim, photographs, auxiliary):
    view, seen = view_of(victim), seen_by_attacker(victim, photographs)
    scores = {}
    for attack in (MeanImageFloor(), Ridge()):
        attack.fit(view, auxiliary, RNG)
        scores[attack.name] = mean_psnr_db(attack.reconstruct(seen, RNG), photographs.images())
    assert scores["ridge"] > scores["floor_mean"] + 3


def test_nearest_floor_finds_an_auxiliary_image_itself(victim, auxiliary):
    attack = NearestImageFloor(candidates=5)
    merge = {"reduction": {"name": "threshold", "thresholds": 0.9}}
    attack.fit(view_of(victim, **merge), auxiliary, RNG)
    known = auxiliary.select([3, 77, 200])
    assert torch.equal(attack.reconstruct(seen_by_attacker(victim, known, **merge), RNG), known.images())


def test_class_mean_floor_answers_by_the_servers_prediction(victim, photographs, auxiliary):
    attack = ClassMeanFloor()
    attack.fit(view_of(victim), auxiliary, RNG)
    rebuilt = attack.reconstruct(seen_by_attacker(victim, photographs), RNG)
    with torch.no_grad():
        predicted = victim.predict(photographs.images()).argmax(1)
    for i, label in enumerate(predicted.tolist()):
        own = auxiliary.labels == label
        chosen = auxiliary.images()[own] if own.any() else auxiliary.images()
        assert torch.allclose(rebuilt[i], chosen.mean(dim=0), atol=1e-5)
    blind = seen_by_attacker(victim, photographs, ThreatModel(victim="none"))
    with pytest.raises(PluginError):
        attack.reconstruct(blind, RNG)


@pytest.fixture(scope="module")
def trained(victim, auxiliary) -> tuple[SetDecoder, object]:
    attack = SetDecoder(steps=120, width=48, layers=2, peak_lr=1e-3)
    curve = attack.fit(view_of(victim, reduction={"name": "threshold", "thresholds": 0.9}), auxiliary, RNG)
    return attack, curve


def test_set_decoder_learns_and_records_it(trained):
    _, curve = trained
    assert curve.points[-1].step == 120
    assert curve.points[-1].heldout_psnr_db > curve.points[0].heldout_psnr_db
    assert curve.points[-1].loss < 0.9 * curve.points[0].loss


def test_set_decoder_ignores_withheld_order_and_batch_mates(victim, photographs, trained):
    attack, _ = trained
    merge = {"reduction": {"name": "threshold", "thresholds": 0.9}}
    seen = seen_by_attacker(victim, photographs, **merge)
    rebuilt = attack.reconstruct(seen, RNG)
    batch = seen.as_batch()
    rows = torch.cat(
        [
            torch.cat([torch.tensor([start]), start + 1 + torch.randperm(length - 1)])
            for start, length in zip(batch.offsets[:-1].tolist(), batch.lengths.tolist(), strict=True)
        ]
    )
    unordered = [
        Observation(seen.tokens[order], seen.lengths, seen.prefix, seen.grid, seen.sizes[order], ordered=False)
        for order in (torch.arange(len(rows)), rows)
    ]
    one, other = (attack.reconstruct(observed, RNG) for observed in unordered)
    assert torch.allclose(one, other, atol=1e-4)
    alone = torch.cat([attack.reconstruct(seen.select([i]), RNG) for i in range(6)])
    assert torch.allclose(alone, rebuilt[:6], atol=1e-4)


def test_a_crippled_attacker_is_not_called_converged(victim, auxiliary):
    curve = SetDecoder(steps=2, width=16, layers=1).fit(view_of(victim), auxiliary, RNG)
    assert plateau_failure(curve)


@pytest.mark.slow
def test_conv_inverse_trains(victim, photographs, auxiliary):
    attack = ConvInverse(epochs=12, channels=[16, 8, 8])
    curve = attack.fit(view_of(victim), auxiliary, RNG)
    assert curve.points[-1].heldout_psnr_db > curve.points[0].heldout_psnr_db
    assert attack.reconstruct(seen_by_attacker(victim, photographs), RNG).shape == (32, 3, 64, 64)


def test_training_is_reproducible(victim, photographs, auxiliary):
    seen, rebuilt = seen_by_attacker(victim, photographs), []
    for _ in range(2):
        attack = SetDecoder(steps=5, width=16, layers=1)
        attack.fit(view_of(victim), auxiliary, RNG)
        rebuilt.append(attack.reconstruct(seen, RNG))
        torch.rand(3)
    assert torch.equal(*rebuilt)


def test_held_out_clusters_are_whole(auxiliary):
    split = hold_out(auxiliary, RNG)
    assert len(split.heldout) > 0
    assert not set(auxiliary.groups[split.train].tolist()) & set(auxiliary.groups[split.heldout].tolist())


def test_the_schedule_warms_up_and_ends_at_zero():
    schedule = Schedule(steps=100, batch_size=1, peak_lr=1.0, warmup_steps=10)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) == pytest.approx(rates[9], rel=0.03)
    assert rates[-1] < 0.001


def test_a_noisy_channel_is_drawn_anew_and_an_ideal_one_is_not(victim, auxiliary):
    few = auxiliary.select(range(4))
    noisy = view_of(victim, channel={"name": "awgn", "snr_db": 0})
    assert not torch.equal(noisy.observe(few, 0).tokens, noisy.observe(few, 1).tokens)
    assert torch.equal(noisy.observe(few, 1).tokens, noisy.observe(few, 1).tokens)
    assert view_of(victim).observe(few, 0) is not None
    assert torch.equal(view_of(victim).observe(few, 0).tokens, view_of(victim).observe(few, 1).tokens)


def test_the_view_withholds_what_is_not_granted(victim, photographs):
    merge = {"reduction": {"name": "threshold", "thresholds": 0.9}, "cut": 3}
    noisy = {"channel": {"name": "awgn", "snr_db": 10}}
    weak = ThreatModel(victim="none", knows={"sizes": False, "order": False, "channel_state": False})
    blind = seen_by_attacker(victim, photographs, weak, **merge, **noisy)
    assert blind.sizes is None
    assert blind.merge_map is None
    assert blind.noise_std is None
    assert blind.output is None
    full = ThreatModel(victim="white-box", knows={"merge_map": True})
    sighted = seen_by_attacker(victim, photographs, full, **merge, **noisy)
    assert sighted.sizes is not None
    assert sighted.merge_map is not None
    assert sighted.noise_std is not None
    # Shuffled: the same tokens in another order, protected places gone.
    assert blind.prefix == 0
    one, other = (o.select([0]).tokens.sort(dim=0).values for o in (blind, sighted))
    assert torch.equal(one, other)
    assert not torch.equal(blind.select([0]).tokens, sighted.select([0]).tokens)
    view = view_of(victim, weak)
    with pytest.raises(AccessDeniedError, match="query"):
        view.predict(photographs.images())
    with pytest.raises(AccessDeniedError, match="weights"):
        view.white_box()
    own = view_of(victim, full).white_box()
    assert own.weights_hash == victim.weights_hash
    assert torch.equal(own.predict(photographs.images()), victim.predict(photographs.images()))


def test_shuffling_keeps_the_merge_map_true(victim, photographs):
    merge = {"reduction": {"name": "threshold", "thresholds": 0.9}}
    knows = {"merge_map": True, "order": False}
    kept = seen_by_attacker(victim, photographs, ThreatModel(knows={"merge_map": True}), **merge)
    moved = seen_by_attacker(victim, photographs, ThreatModel(knows=knows), **merge)
    assert torch.equal(on_grid(kept), on_grid(moved))
