"""Whatever a plug-in is handed is its own: one that writes into all of it changes no number of any other."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from toy_task import Toy, register

from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.harness.contracts.attack import Attack
from leakgauge.harness.contracts.declarations import Knowledge
from leakgauge.harness.contracts.metric import Metric
from leakgauge.harness.contracts.probing import AttributeProbe, IdentityProbe
from leakgauge.harness.errors import SpoiledError
from leakgauge.harness.measurement import attacker_view as views
from leakgauge.harness.measurement import exposure as measure
from leakgauge.harness.measurement.attack_run import Attacked
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.store.cell_record import RebuiltRecord
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.planning import plan
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.values.columns import TIME_COLUMNS
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

CPU = torch.device("cpu")
WHITE = Knowledge(victim="white-box")
OTHERS = ["floor_mean", "ridge", "reidentification"]
SUITE = {
    "name": "handed",
    "task": "toy",
    "defense": {"name": "split_pipeline", "cut": 1},
    "operating_points": [{"name": "merged", "reduction": {"name": "threshold", "thresholds": 0.8}}],
    "channels": ["ideal", {"label": "noisy", "name": "awgn", "snr_db": 10}],
    "threat_models": [{"name": "server", "victim": "white-box", "knows": {"merge_map": True}}],
    "attacks": OTHERS,
    "metrics": ["psnr_db"],
    "evaluation_images": 6,
}


def spoil(*things):
    """Writes into every tensor, the way that leaves the fewest traces."""
    for thing in things:
        if isinstance(thing, torch.Tensor):
            thing.data.zero_()
        elif thing is not None and not isinstance(thing, str | int | tuple | bool):
            spoil(*vars(thing).values())


def spoil_view(view, auxiliary):
    spoil(view.observe(auxiliary), view.trace(auxiliary), view.unreduced(auxiliary))
    spoil(view.predict(auxiliary.images()))
    spoil(view.edge_tokens(auxiliary.images()[:2]))
    spoil(*view.white_box().model.parameters())
    spoil(auxiliary)


class Vandal(Attack):
    name = "vandal"
    knowledge = WHITE

    def fit(self, view, auxiliary, rng):
        self.shape = view.image_shape
        spoil_view(view, auxiliary)

    def reconstruct(self, observations, rng):
        spoil(observations)
        return torch.zeros(len(observations), *self.shape)


class VandalProbe(AttributeProbe):
    name = "vandal_probe"
    knowledge = WHITE
    attribute = "bright"

    def fit(self, view, auxiliary, answers, classes, rng):
        self.classes = classes
        spoil_view(view, auxiliary)
        spoil(answers)

    def predict(self, observations, rng):
        spoil(observations)
        return torch.rand(len(observations), self.classes)


class VandalSeeker(IdentityProbe):
    name = "vandal_seeker"
    knowledge = WHITE

    def fit(self, view, auxiliary, rng):
        spoil_view(view, auxiliary)

    def rank(self, observations, view, gallery, rng):
        scores = torch.rand(len(observations), len(gallery))
        spoil(view.observe(gallery), observations, gallery)
        return scores


class VandalMetric(Metric):
    name = "ssim"
    unit = ""
    leaks_when = "higher"

    def score(self, originals, reconstructions):
        spoil(originals, reconstructions)
        return torch.zeros(len(originals))


@pytest.fixture
def _vandals(monkeypatch):
    here = "test_handing_out"
    register(
        monkeypatch, tasks_toy="toy_task:Toy", attacks_vandal=f"{here}:Vandal", metrics_vandal=f"{here}:VandalMetric"
    )
    register(monkeypatch, attacks_vandal_probe=f"{here}:VandalProbe", attacks_vandal_seeker=f"{here}:VandalSeeker")


def numbers(out, **changes) -> pd.DataFrame:
    run = run_suite(prepare(parse_suite({**SUITE, **changes}), CPU), out, CPU, 1, lambda done, total: None)
    cells = run.cells()
    assert not set(cells["status"]) - {"done"}, list(cells["reason"])
    ours = cells[cells["attack"].isin(OTHERS)].drop(
        columns=[*TIME_COLUMNS, "cell", "code", "ssim", "ssim_lo", "ssim_hi"]
    )
    return ours.reset_index(drop=True)


def tensors(thing) -> list[torch.Tensor]:
    return [value.clone() for value in vars(thing).values() if isinstance(value, torch.Tensor)]


def same(some, others) -> bool:
    return len(some) == len(others) > 0 and all(map(torch.equal, some, others))


@pytest.fixture
def two_views():
    """Two attacks' handles on one operating point."""
    suite = parse_suite(SUITE)
    pipeline = SplitPipeline(Toy().victim(), CPU, cut=1, reduction=suite.operating_points[0].options["reduction"])
    how = {"image_shape": (3, 16, 16), "streams": Streams(0), "batch_size": 8, "device": CPU}
    view = views.GrantedView(Toy().victim(), pipeline, suite.threat_models[0], **how)
    return view.anew(), view.anew()


@pytest.mark.parametrize("look", ["observe", "trace", "unreduced"])
def test_what_an_attack_is_shown_of_its_own_images_is_its_own(two_views, look):
    first, second = (getattr(view, look) for view in two_views)
    images = Toy().split("attacker").select(range(4))
    before = tensors(first(images))
    spoil(first(images))
    assert same(tensors(second(images)), before)


def test_a_victim_that_an_attack_is_given_is_its_own(two_views):
    first, second = two_views
    before = [weight.clone() for weight in Toy().victim().model.parameters()]
    spoil(*first.white_box().model.parameters())
    assert same(list(second.white_box().model.parameters()), before)
    assert same(list(Toy().victim().model.parameters()), before)


def test_what_an_attack_sees_of_the_images_under_attack_is_its_own(tmp_path, monkeypatch):
    cells = plan(parse_suite(SUITE), "data")[: len(OTHERS)]
    observed = Observation(torch.ones(6, 2), torch.tensor([3, 3]), 1, (1, 2), torch.ones(6), torch.ones(2, 2))
    point = SimpleNamespace(costs={}, resolved={}, latency_ms=1.0)
    measured = SimpleNamespace(point=point, kinds={}, observation=observed, hides="")
    monkeypatch.setattr(measure, "measure_exposure", lambda *_: measured)
    view = SimpleNamespace(check_victim=lambda: None)
    monkeypatch.setattr(measure, "_view", lambda *_: SimpleNamespace(anew=lambda: view))
    for name in ("cell_code", "code_digest"):
        monkeypatch.setattr(measure, name, lambda *_: {})
    seen = []

    def attack(context, cell, observation, view, head, hides):
        seen.append(tensors(observation))
        spoil(observation)
        return Attacked(RebuiltRecord(head), None)

    monkeypatch.setattr(measure, "run_attack", attack)
    context = SimpleNamespace(
        suite=parse_suite(SUITE), task=Toy(), device=CPU, batch_size=4, quality_base=torch.ones(2)
    )
    measure.run_exposure(context, cells, RunFolder(tmp_path / "run"), lambda cell, status: None)
    assert len(seen) == len(OTHERS)
    assert all(same(own, tensors(observed)) for own in seen)
    assert float(observed.tokens.sum()) == 12


@pytest.mark.usefixtures("_vandals")
def test_what_one_plugin_writes_into_reaches_no_other(tmp_path):
    alone = numbers(tmp_path / "alone")
    vandals = ["vandal", "vandal_probe", "vandal_seeker"]
    among = numbers(tmp_path / "among", attacks=[*vandals, *OTHERS], metrics=["vandal", "psnr_db"])
    pd.testing.assert_frame_equal(among, alone, check_exact=True)


@pytest.mark.usefixtures("_vandals")
def test_a_victim_too_large_to_copy_is_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(views, "COPIED_BYTES", 0)
    monkeypatch.setattr(torch.Tensor, "zero_", lambda tensor: tensor.mul_(1.0))
    monkeypatch.setattr(
        "test_handing_out.spoil", lambda *things: [t.detach().mul_(1) for t in things if hasattr(t, "grad")]
    )
    with pytest.raises(SpoiledError, match="wrote into the victim's weights"):
        numbers(tmp_path / "run", attacks=["floor_mean", "vandal"])


def test_a_channel_that_writes_into_what_it_carries_is_named(victim, photographs):
    from leakgauge.defenses.channels.analog import IdealChannel
    from leakgauge.defenses.pipeline import SplitPipeline
    from leakgauge.harness.errors import PluginError
    from leakgauge.harness.measurement.transmitting import send
    from leakgauge.harness.values.seeding import Streams

    class Writing(IdealChannel):
        def apply(self, sent, ids, rng):
            sent.tokens.add_(1.0)
            return super().apply(sent, ids, rng)

    pipeline = SplitPipeline(victim, CPU, cut=1)
    encoded = pipeline.encode(photographs.select([0]), Streams(0))
    send(pipeline, encoded, Streams(0))
    with pytest.raises(PluginError, match="have been written over"):
        send(pipeline, encoded, Streams(0), Writing())
