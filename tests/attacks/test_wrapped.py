"""Attacks around attacks: what they need to know, and what they change."""

import pytest
import torch
from photo_views import MERGE, RNG, WHITE_BOX, few_images, seen_by_attacker, view_of

from leakgauge.attacks.data_efficiency import DataEfficiency
from leakgauge.attacks.ridge import Ridge
from leakgauge.attacks.set_decoder import SetDecoder
from leakgauge.attacks.transfer import Transfer, UnreducedView
from leakgauge.harness.contracts.declarations import Knowledge
from leakgauge.harness.errors import AccessDeniedError, ConfigError
from leakgauge.harness.suite.planning import check_knowledge, needed_knowledge, plan
from leakgauge.harness.suite.registry import create
from leakgauge.harness.suite.schema import NamedPlugin, ThreatModel, parse_suite


@pytest.fixture(scope="module")
def auxiliary():
    return few_images()


@pytest.mark.parametrize(
    ("wrapper", "inner", "needs"),
    [
        ({"name": "data_efficiency", "n": 64}, "ridge", Knowledge()),
        ({"name": "data_efficiency", "n": 64}, {"name": "source_map_oracle", "steps": 5}, Knowledge(merge_map=True)),
        ({"name": "data_efficiency", "n": 64}, "floor_class_mean", Knowledge(victim="query")),
        ({"name": "data_efficiency", "n": 64}, "sara", Knowledge(victim="white-box")),
        ({"name": "transfer"}, "floor_class_mean", Knowledge(victim="white-box")),
        ({"name": "transfer"}, "source_map_oracle", Knowledge(victim="white-box", merge_map=True)),
        (
            {"name": "transfer"},
            {"name": "data_efficiency", "n": 9, "attack": "source_map_oracle"},
            Knowledge(victim="white-box", merge_map=True),
        ),
    ],
)
def test_a_wrapper_needs_what_the_attack_within_needs(wrapper, inner, needs):
    assert needed_knowledge(NamedPlugin(label="x", plugin={**wrapper, "attack": inner})) == needs


def test_a_wrapped_attack_is_refused_where_it_would_be_alone():
    suite = parse_suite(
        {
            "name": "s",
            "task": "photos",
            "operating_points": [{"name": "undefended"}],
            "attacks": [{"name": "data_efficiency", "attack": {"name": "source_map_oracle"}, "n": 64}],
        },
        where="test",
    )
    with pytest.raises(AccessDeniedError, match="merge map"):
        check_knowledge(plan(suite, ""))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: create("attacks", "data_efficiency", {"attack": "ridge", "n": 1}), "at least 2"),
        (lambda: DataEfficiency({"steps": 3}, n=64), "names no attack"),
        (lambda: DataEfficiency("ridg", n=64), "ridge"),
        (lambda: DataEfficiency({"name": "ridge", "penalti": 1}, n=64), "penalty"),
        (lambda: DataEfficiency("metadata_only", n=64), "rebuilds no images"),
    ],
)
def test_mistakes_show_when_it_is_built(build, says):
    with pytest.raises(ConfigError, match=says):
        build()


def test_less_data_is_every_kth_image(victim, auxiliary, photographs):
    view, seen = view_of(victim, **MERGE), seen_by_attacker(victim, photographs, **MERGE)
    wrapped, alone, full = DataEfficiency("ridge", n=78), Ridge(), Ridge()
    wrapped.fit(view, auxiliary, RNG)
    rows = torch.linspace(0, len(auxiliary) - 1, 78, dtype=torch.float64).round().long()
    alone.fit(view, auxiliary.select(rows), RNG)
    full.fit(view, auxiliary, RNG)
    one, other, more = (attack.reconstruct(seen, RNG) for attack in (wrapped, alone, full))
    assert torch.equal(one, other)
    assert not torch.equal(one, more)


def test_more_data_than_there_is_changes_nothing(victim, auxiliary, photographs):
    view, seen = view_of(victim, **MERGE), seen_by_attacker(victim, photographs, **MERGE)
    rebuilt = []
    for attack in (
        DataEfficiency({"name": "set_decoder", "steps": 3, "width": 16, "layers": 1}, n=10**6),
        SetDecoder(steps=3, width=16, layers=1),
    ):
        attack.fit(view, auxiliary, RNG)
        rebuilt.append(attack.reconstruct(seen, RNG))
    assert torch.equal(*rebuilt)


def test_a_floor_within_a_wrapper_stays_a_floor():
    assert DataEfficiency("floor_mean", n=64).floor
    assert not DataEfficiency("ridge", n=64).floor
    assert not DataEfficiency.floor


@pytest.mark.parametrize("knows", [{}, {"sizes": False, "order": False}, {"merge_map": True}])
def test_the_attacker_that_does_not_adapt_trains_on_unreduced_tokens(victim, auxiliary, knows):
    model, few = ThreatModel(victim="white-box", knows=knows), auxiliary.select(range(3))
    view = view_of(victim, model, **{"cut": 3, **MERGE})
    own, seen = UnreducedView(view, RNG).observe(few), view.observe(few)
    assert own.lengths.tolist() == [65] * 3
    assert max(seen.lengths.tolist()) < 65
    for field in ("sizes", "merge_map", "noise_std"):
        assert (getattr(own, field) is None) == (getattr(seen, field) is None), field
    assert (own.ordered, own.prefix) == (seen.ordered, seen.prefix)


def test_transfer_falls_short_of_the_attack_that_adapts(victim, auxiliary, photographs):
    images, errors = photographs.images(), []
    for attack in (Transfer("ridge"), Ridge()):
        attack.fit(view_of(victim, WHITE_BOX, **MERGE), auxiliary, RNG)
        rebuilt = attack.reconstruct(seen_by_attacker(victim, photographs, WHITE_BOX, **MERGE), RNG)
        errors.append(float((rebuilt - images).square().mean()))
    assert errors[0] > errors[1]
