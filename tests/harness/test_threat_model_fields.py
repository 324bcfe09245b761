"""Every key of a threat model and of Knowledge changes what an attacker is handed, or is refused: one proof a field."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from toy_task import Toy, register

from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.harness.contracts.attack import Attack
from leakgauge.harness.contracts.declarations import Knowledge
from leakgauge.harness.errors import AccessDeniedError, ConfigError, LeakgaugeError, PluginError
from leakgauge.harness.measurement.attacker_view import GrantedView, observe
from leakgauge.harness.measurement.auxiliary import auxiliary_images, shifted_images
from leakgauge.harness.measurement.transmitting import transmit_all
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.scoring import guards
from leakgauge.harness.suite.planning import missing_grant
from leakgauge.harness.suite.schema import ThreatModel, parse_suite
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.tables.tables import threat_models_grid

CPU, RNG = torch.device("cpu"), Streams(0, ("attacker",))
REDUCED = {"reduction": {"name": "threshold", "thresholds": -1.0}, "proportional_attention": True, "cut": 1}
SHOWN_ONLY = {"name"}
"""Keys that say nothing of what is granted."""


class Elsewhere(Toy):
    """The toy task with images of another domain: dark stripes, with labels that must not be read as classes."""

    name = "elsewhere"

    def shifted(self) -> ImageSet:
        pixels = torch.zeros(10, 3, 16, 16, dtype=torch.uint8)
        pixels[:, :, ::2] = torch.arange(10, dtype=torch.uint8)[:, None, None, None] * 9 + 20
        return ImageSet.from_pixels(pixels, torch.full((10,), 3))


class Listener(Attack):
    """Keeps what it is handed."""

    name = "listener"

    def fit(self, view: Any, auxiliary: ImageSet, rng: Streams) -> None:
        self.handed, self.seen = auxiliary, view.observe(auxiliary) if len(auxiliary) else None

    def reconstruct(self, observations: Any, rng: Streams) -> torch.Tensor:
        return torch.zeros(len(observations), 3, 16, 16)


class Idle(Listener):
    name = "idle"
    knowledge = Knowledge(auxiliary=False)


def leaves(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Walks all keys of a model and of the models within it."""
    for key, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from leaves(inner, f"{above}{key}.")
        else:
            yield above + key


def model_with(key: str, value: Any, **beside: Any) -> ThreatModel:
    stated: dict[str, Any] = dict(beside)
    *groups, last = key.split(".")
    node = stated
    for group in groups:
        node = node.setdefault(group, {})
    node[last] = value
    return ThreatModel.model_validate(stated)


def pipeline(channel: Any = "ideal") -> SplitPipeline:
    return SplitPipeline(Toy().victim(), CPU, channel=channel, **REDUCED)


def attacked(model: ThreatModel, channel: Any = "ideal") -> Any:
    """What is seen of images under attack."""
    defense = pipeline(channel)
    images = Toy().split("search")
    sent = defense.send(transmit_all(defense, images, RNG, 4), RNG)
    return observe(sent, model, defense.grid, torch.zeros(len(images), 4), RNG)


def view_under(model: ThreatModel, channel: Any = "ideal") -> GrantedView:
    return GrantedView(
        Toy().victim(), pipeline(channel), model, image_shape=(3, 16, 16), streams=RNG, batch_size=8, device=CPU
    )


def own(model: ThreatModel, channel: Any = "ideal") -> Any:
    """What an attacker sees of its own images."""
    return view_under(model, channel).observe(Toy().split("attacker").select(range(6)))


def shows(key: str, part: str, channel: Any = "ideal") -> None:
    for seen in (attacked, own):
        assert getattr(seen(model_with(key, True), channel), part) is not None
        assert getattr(seen(model_with(key, False), channel), part) is None


def order() -> None:
    for seen in (attacked, own):
        told, withheld = seen(model_with("knows.order", True)), seen(model_with("knows.order", False))
        assert told.ordered
        assert not withheld.ordered
        assert not torch.equal(told.tokens, withheld.tokens)


def observer() -> None:
    with pytest.raises(LeakgaugeError, match="channel"):
        parse_suite({**SUITE, "threat_models": [{"observer": "eavesdropper"}]})
    overheard = ThreatModel.model_validate({"observer": "eavesdropper", "channel": {"name": "awgn", "snr_db": -10}})
    assert overheard.victim == "none"
    assert not torch.equal(own(overheard).tokens, own(ThreatModel()).tokens)


def channel() -> None:
    near, far = (
        ThreatModel.model_validate({"observer": "eavesdropper", "channel": {"name": "awgn", "snr_db": snr}})
        for snr in (30, -10)
    )
    assert float((own(near).tokens - own(ThreatModel()).tokens).norm()) < float(
        (own(far).tokens - own(ThreatModel()).tokens).norm() / 10
    )


def victim() -> None:
    pixels = Toy().split("search").images()
    none, query, white = (view_under(model_with("victim", access)) for access in ("none", "query", "white-box"))
    assert attacked(none._model).output is None
    assert attacked(query._model).output is not None
    for refused in (lambda: none.predict(pixels), query.white_box, lambda: query.edge_tokens(pixels)):
        with pytest.raises(AccessDeniedError):
            refused()
    assert len(query.predict(pixels)) == len(white.edge_tokens(pixels).lengths)


def domain() -> None:
    inside = auxiliary_images(Elsewhere(), ThreatModel())
    shifted = auxiliary_images(Elsewhere(), ThreatModel(auxiliary={"domain": "shifted"}))
    assert not set(inside.ids) & set(shifted.ids)
    assert len(shifted) == 10
    assert shifted.labels is None
    with pytest.raises(ConfigError, match="'toy' offers no images of a shifted domain"):
        shifted_images(Toy(), "m")


def count() -> None:
    for kind in ("in-domain", "shifted"):
        assert len(auxiliary_images(Elsewhere(), ThreatModel(auxiliary={"domain": kind, "n": 7}))) == 7


def adaptive() -> None:
    images = Toy().split("attacker").select(range(6))
    trained, apart = view_under(ThreatModel()), view_under(ThreatModel(adaptive=False))
    merged, plain = trained.observe(images), apart.observe(images)
    assert int(merged.lengths.max()) < int(plain.lengths.min()) == 16 + plain.prefix
    bare = view_under(ThreatModel(victim="white-box")).unreduced(images)
    assert torch.equal(plain.tokens, bare.tokens)
    assert plain.sizes is not None, "sizes are seen under attack, so they are seen beside own tokens"
    assert plain.merge_map is None
    assert torch.equal(attacked(ThreatModel()).tokens, attacked(ThreatModel(adaptive=False)).tokens), "as defended"
    with pytest.raises(AccessDeniedError):
        apart.unreduced(images)
    white = view_under(ThreatModel(victim="white-box", adaptive=False))
    assert torch.equal(white.trace(images).tokens, bare.tokens)


PROOFS: dict[str, Callable[[], None]] = {
    "observer": observer,
    "channel": channel,
    "knows.merge_map": lambda: shows("knows.merge_map", "merge_map"),
    "knows.sizes": lambda: shows("knows.sizes", "sizes"),
    "knows.order": order,
    "knows.channel_state": lambda: shows("knows.channel_state", "noise_std", {"name": "awgn", "snr_db": 5}),
    "victim": victim,
    "auxiliary.domain": domain,
    "auxiliary.n": count,
    "adaptive": adaptive,
}


def test_every_key_of_a_threat_model_has_a_proof() -> None:
    assert set(leaves(ThreatModel)) - SHOWN_ONLY == set(PROOFS), "a key without a proof that it acts is a mere claim"


@pytest.mark.parametrize("key", PROOFS)
def test_the_key_acts(key: str) -> None:
    PROOFS[key]()


NEEDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sizes": (True, {"knows": {"sizes": False}}),
    "order": (True, {"knows": {"order": False}}),
    "merge_map": (True, {"knows": {"merge_map": False}}),
    "channel_state": (True, {"knows": {"channel_state": False}}),
    "victim": ("white-box", {"victim": "query"}),
}
"""What an attack may need, and a threat model that withholds it."""


def test_every_field_of_knowledge_has_a_proof() -> None:
    fields = getattr(Knowledge, "_fields", None) or [field.name for field in dataclasses.fields(Knowledge)]
    assert set(fields) == {*NEEDS, "auxiliary"}


@pytest.mark.parametrize("field", NEEDS)
def test_what_an_attack_needs_and_is_not_granted_is_refused(field: str) -> None:
    value, withheld = NEEDS[field]
    assert missing_grant(Knowledge(**{field: value}), ThreatModel.model_validate(withheld)) is not None
    assert missing_grant(Knowledge(), ThreatModel.model_validate(withheld)) is None


def test_an_attack_that_needs_no_images_gets_none() -> None:
    view, images = view_under(ThreatModel()), Toy().split("attacker")
    busy, idle = Listener(), Idle()
    for attack in (busy, idle):
        guards.fit(attack, view, images, RNG)
    assert (len(busy.handed), len(idle.handed)) == (len(images), 0)


SUITE: dict[str, Any] = {
    "name": "keys",
    "task": "elsewhere",
    "defense": {"name": "split_pipeline", "cut": 1, "proportional_attention": True},
    "operating_points": [{"name": "plain"}, {"name": "merged", "reduction": {"name": "threshold", "thresholds": 0.0}}],
    "attacks": ["floor_mean", "ridge", {"label": "moved", "name": "transfer", "attack": "ridge"}],
    "metrics": ["psnr_db"],
    "threat_models": [
        {"name": "adapts", "victim": "white-box"},
        {"name": "fixed", "victim": "white-box", "adaptive": False},
        {"name": "far", "victim": "white-box", "auxiliary": {"domain": "shifted"}},
    ],
}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, tasks_elsewhere="test_threat_model_fields:Elsewhere", tasks_toy="toy_task:Toy")


def test_a_run_says_what_was_really_so(registered: None, tmp_path: Any) -> None:
    store = run_suite(prepare(parse_suite(SUITE), CPU), tmp_path / "run", CPU, 1, lambda done, total: None)
    cells = store.cells().set_index(["threat_model", "operating_point", "attack"])
    assert (cells["status"] == "done").all()

    def psnr(*key: str) -> float:
        return float(cells.loc[key, "psnr_db"])

    assert psnr("fixed", "merged", "ridge") == pytest.approx(psnr("adapts", "merged", "moved"), abs=1e-6)
    assert psnr("fixed", "merged", "ridge") != pytest.approx(psnr("adapts", "merged", "ridge"), abs=0.01)
    assert psnr("fixed", "plain", "ridge") == pytest.approx(psnr("adapts", "plain", "ridge"), abs=1e-6)
    assert psnr("far", "merged", "floor_mean") != pytest.approx(psnr("adapts", "merged", "floor_mean"), abs=0.1)
    for model, attack in (("fixed", "ridge"), ("adapts", "moved")):
        row = cells.loc[(model, "merged", attack)]
        assert row["verdict"] in ("lower bound", "inconclusive")
        if row["verdict"] == "lower bound":
            assert "did not adapt" in row["reason"]
    grid = threat_models_grid(load_runs([store])[0])
    stated = {row[0].text: [value.text for value in row[1:]] for row in grid.rows}
    adapted = next(values for key, values in stated.items() if "adaptive" in key)
    assert "but for moved" in adapted[0]
    assert "no" in adapted[1]
    domains = next(values for key, values in stated.items() if "Domain" in key)
    assert "shifted" in domains[2]


def test_a_task_without_shifted_images_is_refused_at_once(registered: None) -> None:
    with pytest.raises(ConfigError, match=r"'toy' offers no images of a shifted domain"):
        prepare(parse_suite({**SUITE, "task": "toy"}), CPU)


def test_a_probe_that_must_know_answers_is_refused_on_shifted_images(registered: None) -> None:
    probing = {**SUITE, "attacks": ["floor_mean", {"name": "metadata_only", "attribute": "bright"}]}
    with pytest.raises(ConfigError, match="shifted ones do not have"):
        prepare(parse_suite(probing), CPU)


def test_shifted_images_of_another_size_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    small = ImageSet.from_pixels(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    monkeypatch.setattr(Elsewhere, "shifted", lambda self: small)
    with pytest.raises(PluginError, match="no images of the task's size"):
        shifted_images(Elsewhere(), "m")
