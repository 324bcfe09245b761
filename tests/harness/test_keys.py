"""What decides a result is in the key it is kept under: of a cell, a run folder, a searched point; and in digests."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from leakgauge.harness.errors import StoreError
from leakgauge.harness.run.plan import Plan
from leakgauge.harness.run.runner import open_store
from leakgauge.harness.search.space import parse_space
from leakgauge.harness.search.trials.evaluation import Evaluator
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.planning import plan
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.values.images import ImageSet

BASE = {
    "name": "keys",
    "task": "photos",
    "defense": {"name": "split_pipeline", "cut": 1},
    "operating_points": [{"name": "undefended"}],
    "channels": [{"label": "air", "name": "awgn", "snr_db": 10}],
    "threat_models": [{"name": "server", "auxiliary": {"n": 100}}],
    "attacks": [{"label": "ridge", "name": "ridge", "penalty": 0.1}],
}
CHANGES = {
    "defense": {"defense": {"name": "split_pipeline", "cut": 2}},
    "operating point": {"operating_points": [{"name": "undefended", "codec": "float16"}]},
    "channel": {"channels": [{"label": "air", "name": "awgn", "snr_db": 9}]},
    "knowledge": {"threat_models": [{"name": "server", "auxiliary": {"n": 100}, "knows": {"order": False}}]},
    "auxiliary images": {"threat_models": [{"name": "server", "auxiliary": {"n": 99}}]},
    "attack": {"attacks": [{"label": "ridge", "name": "ridge", "penalty": 0.2}]},
    "seed": {"seeds": [1]},
}


def key_of(**changes) -> str:
    (cell,) = plan(parse_suite({**BASE, **changes}), "data")
    return cell.key


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_decides_a_cell_makes_another_cell(what):
    assert key_of(**CHANGES[what]) != key_of() == key_of()


def test_other_data_make_other_cells():
    assert plan(parse_suite(BASE), "other")[0].key != key_of()


def plan_of(data=None, **changes) -> SimpleNamespace:
    """As much of a plan as its key is made of."""
    parts = SimpleNamespace(suite=parse_suite({**BASE, **changes}), data={"victim": "v1", **(data or {})})
    return SimpleNamespace(key=Plan.key.fget(parts))


@pytest.mark.parametrize("other", [{"data": {"victim": "v2"}}, {"seeds": [1]}, {"evaluation_images": 3}])
def test_a_folder_takes_no_run_of_another_suite_or_data(tmp_path, other):
    store = RunFolder(tmp_path)
    store.write_manifest({"plan_key": plan_of().key, "sessions": [], "status": "running"})
    assert open_store(plan_of(), tmp_path)[0].path == tmp_path
    with pytest.raises(StoreError, match="another suite, data or weights"):
        open_store(plan_of(**other), tmp_path)


SPACE = {
    "name": "s",
    "task": "photos",
    "defense": {"name": "split_pipeline", "cut": 2},
    "objectives": ["quality", "payload_bytes"],
    "trials": 4,
}


def memo_key(what="metrics", data="images and weights", device="cpu", point=None, **changes) -> str:
    evaluator = object.__new__(Evaluator)
    evaluator.space, evaluator._data = parse_space({**SPACE, **changes}), {"split_search": data}
    evaluator._context = SimpleNamespace(device=torch.device(device))
    return evaluator._key(what, {"options": point or {"cut": 2}, "channel": {"name": "ideal"}})


@pytest.mark.parametrize(
    "changes",
    [
        {"what": "thresholds"},
        {"data": "others"},
        {"device": "cuda"},
        {"point": {"cut": 1}},
        {"defense": {"name": "split_pipeline", "cut": 2, "codec": "float16"}},
        {"batch_size": 3},
        {"objectives": ["quality", "latency_ms"]},
    ],
)
def test_whatever_decides_a_searched_point_measures_it_anew(changes):
    assert memo_key(**changes) != memo_key() == memo_key()


@pytest.mark.parametrize("changes", [{"trials": 9}, {"seed": 3}, {"sampler": "random"}, {"warm_start": 1}])
def test_how_a_point_came_to_be_tried_does_not(changes):
    assert memo_key(**changes) == memo_key()


def test_digests_see_what_they_say():
    pixels = torch.arange(3 * 3 * 4 * 4, dtype=torch.uint8).view(3, 3, 4, 4)
    images = ImageSet.from_pixels(pixels, torch.tensor([0, 1, 2]))
    assert images.select([1, 0, 2]).digest() != images.digest()
    assert replace(images, labels=torch.tensor([0, 1, 1])).digest() != images.digest()
    assert replace(images, pixels=pixels + 1).full_digest() != images.full_digest()
    assert images.select([0, 1]).full_digest() != images.full_digest()
    one, other = (ImageSet.from_pixels(p) for p in (pixels, pixels.clone()))
    assert one.ids == other.ids
    assert ImageSet.from_pixels(pixels.transpose(2, 3)).ids != one.ids
    assert len(set(one.ids)) == 3
    for place in ((0, 0, 0, 0), (0, 1, 2, 1), (0, 2, 3, 3)):
        other = pixels.clone()
        other[place] += 1
        assert ImageSet.from_pixels(other).ids[0] != one.ids[0]


def test_spread_takes_both_ends_and_even_steps():
    images = ImageSet.from_pixels(torch.zeros(101, 3, 1, 1, dtype=torch.uint8))
    numbered = replace(images, labels=torch.arange(101))
    assert numbered.evenly_spaced(5).labels.tolist() == [0, 25, 50, 75, 100]
    assert numbered.evenly_spaced(None) is numbered
    assert len(numbered.evenly_spaced(500)) == 101
