"""Every attack, trained twice from one seed, answers the same; and the global random state is left alone."""

import pytest
import torch
from photo_views import MERGE, RNG, few_images, seen_by_attacker, view_of

from leakgauge.harness.contracts.probing import AttributeProbe, IdentityProbe
from leakgauge.harness.suite.registry import create
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.values.images import ImageSet

TINY = {"steps": 6, "width": 16, "layers": 1}
SPECS = [
    {"name": "conv_inverse", "epochs": 1, "channels": [8]},
    {"name": "set_decoder", **TINY},
    {"name": "cascade"},
    {"name": "cascade_merged", **TINY},
    {"name": "sara_merged", **TINY},
    {"name": "source_map_oracle", **TINY},
    {"name": "sara", "steps": 6, "channels": [8], "predictor_steps": 5, "imputer_steps": 5, "assignment": "hungarian"},
    {"name": "data_efficiency", "n": 50, "attack": {"name": "set_decoder", **TINY}},
    {"name": "transfer", "attack": {"name": "set_decoder", **TINY}},
    {"name": "attribute_probe", "attribute": "label", "epochs": 2, "width": 16},
    {"name": "metadata_only", "rounds": 2},
    {"name": "reidentification"},
]


def answers(victim, photographs: ImageSet, spec: dict) -> torch.Tensor:
    model = ThreatModel(victim="white-box", knows={"merge_map": True, "order": False})
    options = {**MERGE, "channel": {"name": "awgn", "snr_db": 10}, "cut": 3}
    auxiliary, view = few_images().select(range(0, 308, 4)), view_of(victim, model, **options)
    seen = seen_by_attacker(victim, photographs, model, **options)
    attack = create("attacks", spec["name"], {k: v for k, v in spec.items() if k != "name"})
    if isinstance(attack, AttributeProbe):
        attack.fit(view, auxiliary, auxiliary.labels, 56, RNG)
        return attack.predict(seen, RNG)
    attack.fit(view, auxiliary, RNG)
    if isinstance(attack, IdentityProbe):
        return attack.rank(seen, view, photographs, RNG)
    return attack.reconstruct(seen, RNG)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec["name"])
def test_one_seed_gives_one_answer(victim, photographs, spec):
    torch.manual_seed(1)
    one = answers(victim, photographs, spec)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    other = answers(victim, photographs, spec)
    assert torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())
