"""Whatever a plug-in is handed is its own: one that writes into all of it changes no number of any other."""

import pandas as pd
import pytest
import torch
from toy_task import register

from harness import views
from harness.contracts import Attack, Knowledge, Metric
from harness.errors import SpoiledError
from harness.probing import AttributeProbe, IdentityProbe
from harness.results import TIME_COLUMNS
from harness.runner import prepare, run_suite
from harness.suite import parse_suite

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
    from defenses.channels.analog import IdealChannel
    from defenses.pipeline import SplitPipeline
    from harness.errors import PluginError
    from harness.seeding import Streams
    from harness.transmitting import send

    class Writing(IdealChannel):
        def apply(self, sent, ids, rng):
            sent.tokens.add_(1.0)
            return super().apply(sent, ids, rng)

    pipeline = SplitPipeline(victim, CPU, cut=1)
    encoded = pipeline.encode(photographs.select([0]), Streams(0))
    send(pipeline, encoded, Streams(0))
    with pytest.raises(PluginError, match="have been written over"):
        send(pipeline, encoded, Streams(0), Writing())
