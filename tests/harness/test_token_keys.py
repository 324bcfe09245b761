"""Everything that decides tokens is in the key that they are stored under: change one thing and the key is another."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest
import torch

from leakgauge.harness.measurement import exposure as measure
from leakgauge.harness.measurement.attacker_view import GrantedView
from leakgauge.harness.measurement.exposure import measure_exposure, recall_through
from leakgauge.harness.run.best_known import FILE
from leakgauge.harness.search.trials.memo import Memo
from leakgauge.harness.store import code_digest as digest_module
from leakgauge.harness.store.code_digest import code_digest, forget
from leakgauge.harness.suite.planning import plan
from leakgauge.harness.suite.schema import ThreatModel, parse_suite
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams

SUITE = {
    "name": "keys",
    "task": "photos",
    "defense": {"name": "split_pipeline", "cut": 1},
    "operating_points": [{"name": "undefended"}, {"name": "merged", "reduction": "none"}],
    "threat_models": [{"name": "server"}],
    "attacks": ["ridge"],
}


class Question(Exception):
    """Raised with the name or key under which tokens were looked up, so that nothing is computed."""


def refuse(name, compute):
    raise Question(name)


def context_of(device="cpu", batch_size=64, evaluation=None):
    facts = {"device": torch.device(device), "batch_size": batch_size, "evaluation": evaluation}
    task = SimpleNamespace(questions=lambda images: None)
    return SimpleNamespace(**facts, victim=None, task=task, bandwidth_hz=1e6)


def exposure_of(**changes):
    return replace(plan(parse_suite(SUITE), "data and weights")[0].exposure, **changes)


def key_of(context, exposure, name="evaluation 0123") -> str:
    with pytest.raises(Question) as caught:
        recall_through(SimpleNamespace(encoded=refuse), context, exposure)(name, lambda: None)
    return str(caught.value)


def gpu(monkeypatch, name="one", number=0):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: name)
    return context_of(f"cuda:{number}")


CHANGES = {
    "code": lambda m: (m.setattr(measure, "code_digest", lambda: "another"), (context_of(), exposure_of()))[1],
    "data": lambda m: (context_of(), exposure_of(data_key="other data or weights")),
    "defense": lambda m: (
        context_of(),
        replace(exposure_of(), defense=plan(parse_suite(SUITE), "")[1].exposure.defense),
    ),
    "seed": lambda m: (context_of(), exposure_of(seed=1)),
    "batch size": lambda m: (context_of(batch_size=32), exposure_of()),
    "threads": lambda m: (m.setattr(torch, "get_num_threads", lambda: 7), (context_of(), exposure_of()))[1],
    "device": lambda m: (gpu(m), exposure_of()),
}


@pytest.mark.parametrize("what", CHANGES)
def test_every_part_of_the_key_makes_another_key(monkeypatch, what):
    before = key_of(context_of(), exposure_of())
    assert key_of(context_of(), exposure_of()) == before
    assert key_of(*CHANGES[what](monkeypatch)) != before


def test_another_set_and_another_model_of_gpu_have_another_key(monkeypatch):
    plain = context_of(), exposure_of()
    assert key_of(*plain, "own 0123") != key_of(*plain, "evaluation 0123")
    one = key_of(gpu(monkeypatch, "one"), exposure_of())
    assert key_of(gpu(monkeypatch, "other"), exposure_of()) != one


@pytest.fixture
def two_sets():
    """Two sets of one name: other pixels under the same identifiers."""
    pixels = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).view(2, 3, 8, 8)
    return ImageSet(pixels, ("a", "b")), ImageSet(pixels.flip(0), ("a", "b"))


def test_images_under_attack_are_looked_up_by_their_content(monkeypatch, two_sets):
    monkeypatch.setattr(measure, "build_defense", lambda *a: SimpleNamespace(needs_calibration=False))
    names = []
    for images in (*two_sets, two_sets[0]):
        with pytest.raises(Question) as caught:
            measure_exposure(context_of(evaluation=images), exposure_of(), refuse)
        names.append(str(caught.value))
    assert names[0] == names[2] != names[1]


def view_of(channel):
    defense = SimpleNamespace(grid=(1, 1), channel=channel, unreduced=lambda: defense, needs_calibration=False)
    return GrantedView(
        None,
        defense,
        ThreatModel(victim="white-box"),
        image_shape=(3, 8, 8),
        streams=Streams(0),
        batch_size=4,
        device=torch.device("cpu"),
        cached=refuse,
    )


def test_the_attackers_own_images_are_looked_up_by_what_was_sent(two_sets):
    view, names = view_of(SimpleNamespace(random=False, snr_db=None)), []
    for look in (view.observe, view.trace, view.unreduced):
        for images in two_sets:
            with pytest.raises(Question) as caught:
                look(images)
            names.append(str(caught.value))
    # Observed and traced are one transmission; an unreduced one is another, and other pixels are another set.
    assert names[:2] == names[2:4]
    assert len(set(names)) == 4


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    """A plug-in of a package of its own; yields its folder. The digest then covers it and nothing large."""
    folder = tmp_path / "some_plug_in"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "one.py").write_text("class Thing: x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    points = {"thing": EntryPoint("thing", "some_plug_in.one:Thing", "leakgauge.reductions")}
    monkeypatch.setattr(digest_module.registry, "plugins", lambda group: points)
    forget()
    yield folder
    forget()


def digest_anew() -> str:
    forget()
    return code_digest()


def test_the_digest_follows_every_file_of_a_plug_in(plug_in):
    before = digest_anew()
    assert digest_anew() == before
    (plug_in / "one.py").write_text("class Thing: x = 2\n")
    edited = digest_anew()
    (plug_in / "deep").mkdir()
    (plug_in / "deep" / "two.py").write_text("y = 3\n")
    added = digest_anew()
    (plug_in / "deep" / "two.py").rename(plug_in / "deep" / "three.py")
    renamed = digest_anew()
    assert len({before, edited, added, renamed}) == 4


def test_writing_down_what_a_run_reached_makes_no_other_code(plug_in):
    before = digest_anew()
    (plug_in / FILE).write_text("{}")
    assert digest_anew() == before


def test_a_search_forgets_what_other_code_measured(tmp_path, monkeypatch):
    counts = []
    for code in ("one", "other", "one"):
        monkeypatch.setattr("leakgauge.harness.search.trials.memo.code_digest", lambda code=code: code)
        memo = Memo(tmp_path)
        assert memo.cached("key", lambda code=code: {"by": code}) == {"by": code}
        counts.append(memo.misses)
    assert counts == [1, 1, 0]
