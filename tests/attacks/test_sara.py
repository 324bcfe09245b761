"""Finding the layout: position predictor, assignment, imputer, supervised placement, the oracle."""

import pytest
import torch
from photo_views import MERGE, RNG, WHITE_BOX, few_images, seen_by_attacker, view_of

from leakgauge.attacks.conv_inverse import ConvInverse
from leakgauge.attacks.networks.imputer import FeatureImputer
from leakgauge.attacks.networks.positions import PositionPredictor, lay, position_loss, source_positions
from leakgauge.attacks.sara import Sara
from leakgauge.attacks.sara_merged import SaraMerged
from leakgauge.attacks.set_decoder import SetDecoder
from leakgauge.attacks.source_map_oracle import SourceMapOracle
from leakgauge.attacks.training.layout import token_statistics
from leakgauge.attacks.training.loop import Schedule, mean_psnr_db, train_part
from leakgauge.attacks.training.withheld import as_seen, like_seen, shuffled
from leakgauge.benchmarks.tasks.photo_crops.photos import crop_set
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.registry import create
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.observation import Observation

SMALL = {"predictor_steps": 60, "imputer_steps": 60, "predictor_width": 32, "imputer_width": 32, "imputer_layers": 1}


@pytest.fixture(scope="module")
def auxiliary():
    return few_images()


def test_positions_of_unreduced_tokens():
    merge_map = torch.tensor([[2, 1, 3], [1, -1, 2]])
    seen = Observation(torch.zeros(7, 1), torch.tensor([4, 3]), 1, (1, 3), merge_map=merge_map)
    assert source_positions(seen).tolist() == [[3, 1, 0, 2], [3, 0, 2, 3]]


@pytest.mark.parametrize("assignment", ["argmax", "hungarian"])
def test_tokens_are_laid_where_they_belong(assignment):
    tokens = torch.tensor([[[9.0], [1.0], [2.0], [3.0], [0.0]]])
    mask = torch.tensor([[True, True, True, True, False]])
    # Token 0 is protected; 1 and 2 both want position 0, 1 the more so, and 2 would rather have 2 than 1.
    logits = torch.full((1, 5, 4), -9.0)
    logits[0, 0, 3], logits[0, 1, 0], logits[0, 2, 0], logits[0, 2, 2], logits[0, 3, 1] = 5.0, 9.0, 5.0, 4.0, 5.0
    laid = lay(logits, tokens, mask, assignment)
    expected = {"argmax": [1.0, 3.0, 0.0], "hungarian": [1.0, 3.0, 2.0]}[assignment]
    assert laid.tokens.flatten().tolist() == expected
    assert laid.filled.tolist() == [[value > 0 for value in expected]]


def test_an_unknown_assignment_is_refused():
    with pytest.raises(ConfigError, match="hungarian"):
        create("attacks", "sara", {"assignment": "hungarain"})


def test_the_imputer_leaves_what_is_there():
    imputer = FeatureImputer(torch.zeros(5), torch.ones(5), 4, width=8, layers=1, heads=2)
    tokens, filled = torch.randn(2, 4, 5), torch.tensor([[True, False, True, True], [False, True, True, False]])
    full = imputer(tokens, filled)
    assert torch.equal(full[filled], tokens[filled])
    assert not torch.equal(full[~filled], tokens[~filled])
    # What lies on an empty position has no say.
    assert torch.equal(full, imputer(torch.where(filled[..., None], tokens, torch.tensor(7.0)), filled))


def test_shuffling_moves_sizes_and_merge_map_along(victim):
    view = view_of(victim, ThreatModel(victim="white-box", knows={"merge_map": True}), **MERGE)
    own = view.trace(crop_set("evaluation").select(range(5)))
    moved = shuffled(own, RNG)
    assert not torch.equal(moved.tokens, own.tokens)
    assert torch.equal(moved.as_batch().unmerge(), own.as_batch().unmerge())
    assert torch.equal(moved.sizes.sort().values, own.sizes.sort().values)
    moved.as_batch()
    assert (moved.prefix, moved.ordered) == (0, False)


def test_what_is_withheld_under_attack_is_withheld_in_training(victim, auxiliary):
    blind = ThreatModel(victim="white-box", knows={"sizes": False, "order": False})
    view = view_of(victim, blind, cut=3, **MERGE)
    few = auxiliary.select(range(4))
    cut = like_seen(view.trace(few), view.observe(few))
    assert (cut.sizes, cut.ordered, cut.prefix) == (None, False, 0)
    assert cut.merge_map is not None
    assert as_seen(view.trace(few), view.observe(few), RNG).merge_map is None


def test_the_position_predictor_beats_chance_by_far(victim, auxiliary):
    view = view_of(victim, WHITE_BOX, **MERGE)
    own = view.unreduced(auxiliary)
    mean, std = token_statistics(own)
    torch.manual_seed(0)
    predictor = PositionPredictor(mean, std, 64, width=32, layers=1, heads=2)
    half, quarter = train_part(
        predictor,
        lambda draw: view.unreduced(auxiliary, draw),
        torch.arange(len(auxiliary)),
        Schedule(60, 16, 4e-3, warmup_steps=5),
        lambda network, observed, draws: position_loss(network, observed, 0.3, draws),
        RNG,
        torch.device("cpu"),
        double_check=True,
    )
    test = view.unreduced(crop_set("evaluation").select(range(0, 560, 20)))
    with torch.no_grad():
        found = [
            (network(*test.as_batch().padded()).argmax(dim=2) == source_positions(test)).float().mean()
            for network in (predictor, half, quarter)
        ]
    assert found[0] > 0.15  # chance: 1 / 65
    assert found[0] > found[1] > 1 / 65
    assert found[0] > found[2]


def psnr_on_shuffled(attack, victim, auxiliary, photographs, **options):
    """PSNR in dB where every payload is shuffled, trained on just that."""
    model = ThreatModel(victim="white-box")
    options = {"perturb": ["shuffle"], **options}
    attack.fit(view_of(victim, model, **options), auxiliary, RNG)
    seen = seen_by_attacker(victim, photographs, model, **options)
    return mean_psnr_db(attack.reconstruct(seen, RNG), photographs.images())


@pytest.mark.slow
def test_shuffling_defeats_the_naive_layout_and_not_attacks_that_find_it(victim, photographs):
    # Budgets of suite `standard`: with fewer steps the predictor misplaces too many tokens for the rest to help.
    auxiliary = crop_set("attacker")
    naive = psnr_on_shuffled(ConvInverse(epochs=2, channels=[32, 24, 16]), victim, auxiliary, photographs)
    sara = psnr_on_shuffled(Sara(steps=300, predictor_steps=500, imputer_steps=200), victim, auxiliary, photographs)
    sets = psnr_on_shuffled(SetDecoder(steps=400), victim, auxiliary, photographs)
    assert sara > naive + 4
    assert sets > naive + 1


def test_sara_paints_merged_payloads(victim, auxiliary, photographs):
    attack = Sara(steps=24, channels=[8], **SMALL)
    curve = attack.fit(view_of(victim, WHITE_BOX, **MERGE), auxiliary, RNG)
    assert curve.points[-1].step == 24
    rebuilt = attack.reconstruct(seen_by_attacker(victim, photographs, WHITE_BOX, **MERGE), RNG)
    # Held-out images and these are alike: the curve is measured on received payloads, through the whole pipeline.
    assert mean_psnr_db(rebuilt, photographs.images()) == pytest.approx(curve.points[-1].heldout_psnr_db, abs=2.5)


def test_a_part_is_trained_the_same_beside_its_half_and_the_earlier_are_trainings_of_fewer_steps(victim, auxiliary):
    view = view_of(victim, WHITE_BOX, **MERGE)
    mean, std = token_statistics(view.unreduced(auxiliary))
    schedule, rows = Schedule(8, 4, 4e-3, warmup_steps=2), torch.arange(len(auxiliary))

    def trained(schedule, double_check):
        torch.manual_seed(0)
        network = PositionPredictor(mean, std, 64, width=16, layers=1, heads=2)
        earlier = train_part(
            network,
            lambda draw: view.unreduced(auxiliary, draw),
            rows,
            schedule,
            lambda network, observed, draws: position_loss(network, observed, 0.3, draws),
            RNG,
            torch.device("cpu"),
            double_check=double_check,
        )
        return network.state_dict(), [each.state_dict() for each in earlier]

    alone, nothing = trained(schedule, double_check=False)
    beside, earlier = trained(schedule, double_check=True)
    assert not nothing
    assert all(torch.equal(alone[name], beside[name]) for name in alone)
    shorter = (schedule.halved(), schedule.halved().halved())
    assert len(earlier) == len(shorter)
    for branched, budget in zip(earlier, shorter, strict=True):
        real, _ = trained(budget, double_check=False)
        assert all(torch.equal(real[name], branched[name]) for name in real)


@pytest.mark.slow
def test_supervision_teaches_the_placement(victim, auxiliary):
    view = view_of(victim, WHITE_BOX, **MERGE)
    options = {"steps": 60, "width": 32, "layers": 1, "double_check": False}
    misses = []
    for attack in (SetDecoder(**options), SaraMerged(position_weight=1.0, **options)):
        attack.fit(view, auxiliary, RNG)
        with torch.no_grad():
            misses.append(float(attack._network.supervised(view.trace(auxiliary.select(range(64))))[1]))
    assert misses[1] < misses[0] - 0.2


def test_sara_merged_takes_payloads_of_withheld_order_and_sizes(victim, auxiliary, photographs):
    blind = ThreatModel(victim="white-box", knows={"sizes": False, "order": False})
    attack = SaraMerged(steps=6, width=16, layers=1)
    attack.fit(view_of(victim, blind, **MERGE), auxiliary, RNG)
    rebuilt = attack.reconstruct(seen_by_attacker(victim, photographs, blind, **MERGE), RNG)
    assert rebuilt.shape == (32, 3, 64, 64)


def test_the_oracle_uses_the_merge_map(victim, auxiliary, photographs):
    told = ThreatModel(knows={"merge_map": True})
    attack = SourceMapOracle(steps=6, width=16, layers=1)
    attack.fit(view_of(victim, told, **MERGE), auxiliary, RNG)
    seen = seen_by_attacker(victim, photographs, told, **MERGE)
    rebuilt = attack.reconstruct(seen, RNG)
    lied_to = Observation(
        seen.tokens, seen.lengths, seen.prefix, seen.grid, seen.sizes, seen.merge_map.flip(1), ordered=True
    )
    assert mean_psnr_db(rebuilt, photographs.images()) > 2 + mean_psnr_db(
        attack.reconstruct(lied_to, RNG), photographs.images()
    )


def test_the_oracle_takes_dropped_patches(victim, auxiliary, photographs):
    told, drop = ThreatModel(knows={"merge_map": True}), {"reduction": {"name": "top_k", "keep": [0.5, 0.5]}}
    attack = SourceMapOracle(steps=3, width=16, layers=1)
    attack.fit(view_of(victim, told, **drop), auxiliary, RNG)
    assert torch.isfinite(attack.reconstruct(seen_by_attacker(victim, photographs, told, **drop), RNG)).all()
