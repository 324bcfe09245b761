"""An attack that looks wherever Python lets it look from its arguments does not find the images it is scored on.

Out of scope, because Python hides nothing: the garbage collector, the frames of callers, globals and imports.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from toy_task import register

from leakgauge.harness.contracts.attack import Attack
from leakgauge.harness.contracts.probing import AttributeProbe, IdentityProbe
from leakgauge.harness.measurement.attack_run import AttackRun
from leakgauge.harness.measurement.context import RunContext
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.planning import plan
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.values.seeding import Streams

CPU = torch.device("cpu")
SUITE = {
    "name": "access",
    "task": "toy",
    # Fitted, random, perturbed, matched to a reference: everything that might keep something of the images.
    "defense": {"name": "split_pipeline", "cut": 1, "codec": {"name": "pca", "rank": 4}},
    "operating_points": [
        {"name": "matched", "reduction": {"name": "random_merge", "match": {"name": "threshold", "thresholds": 0.5}}}
    ],
    "channels": [{"label": "air", "name": "awgn", "snr_db": 10}],
    "threat_models": [{"name": "server", "victim": "white-box"}],
    "attacks": ["floor_mean"],
    "metrics": ["psnr_db"],
}
OPAQUE = (
    types.ModuleType,
    str,
    bytes,
    int,
    float,
    complex,
    bool,
    type(None),
    torch.device,
    torch.dtype,
    torch.Generator,
)


def inside(thing: object) -> Iterator[object]:
    """Yields what attributes, items and closures of an object lead to."""
    if isinstance(thing, dict):
        yield from thing.keys()
        yield from thing.values()
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from thing
    elif isinstance(thing, types.FunctionType):
        yield from (cell.cell_contents for cell in thing.__closure__ or ())
        yield from (thing.__defaults__, thing.__kwdefaults__)
    elif isinstance(thing, types.MethodType):
        yield from (thing.__self__, thing.__func__)
    elif isinstance(thing, functools.partial):
        yield from (thing.func, thing.args, thing.keywords)
    elif isinstance(thing, torch.Tensor):
        yield from (thing._base, thing.grad, thing.grad_fn)
    elif isinstance(thing, type) and thing.__module__ != "builtins":
        yield from (value for name, value in vars(thing).items() if name != "__dict__")
    yield from getattr(thing, "__dict__", {}).values()
    for kind in type(thing).__mro__:
        slots = getattr(kind, "__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            yield getattr(thing, name, None)
    if type(thing).__module__.startswith(("leakgauge.harness.", "leakgauge.defenses.", "leakgauge.benchmarks.")):
        yield type(thing)


def reachable(*starts: object) -> list[object]:
    """Returns everything that can be reached from ``starts``."""
    found: dict[int, object] = {}
    waiting = list(starts)
    while waiting:
        thing = waiting.pop()
        if id(thing) in found or isinstance(thing, OPAQUE):
            continue
        found[id(thing)] = thing
        waiting.extend(inside(thing))
    return list(found.values())


def memory_of(thing: object) -> bytes:
    """Returns all the bytes that a tensor or array lies on, those beside it included."""
    if isinstance(thing, np.ndarray):
        while isinstance(thing.base, np.ndarray):
            thing = thing.base
        return thing.tobytes()
    assert isinstance(thing, torch.Tensor)
    storage = thing.detach().cpu().untyped_storage()
    return bytes(torch.tensor([], dtype=torch.uint8).set_(storage).numpy())


def holders(evaluation, *starts: object) -> list[object]:
    """Returns the reachable tensors and arrays whose memory holds an evaluation image as uint8 or float32."""
    floats = [image.contiguous().numpy().tobytes() for image in evaluation.images()]
    needles = [image.contiguous().numpy().tobytes() for image in evaluation.pixels] + floats
    found, seen = [], set()
    for thing in reachable(*starts):
        if isinstance(thing, np.ndarray | torch.Tensor):
            data = memory_of(thing)
            if data not in seen and any(needle in data for needle in needles):
                found.append(thing)
            seen.add(data)
    return found


class Spy:
    """Keeps what it is handed."""

    name = "spy"
    attribute = "bright"

    def __init__(self) -> None:
        self.handed: list[object] = []

    def keep(self, *arguments):
        self.handed.extend(arguments)


class Painter(Spy, Attack):
    def fit(self, view, auxiliary, rng):
        for show in (view.observe, view.trace, view.unreduced):
            show(auxiliary)
        self.keep(view, auxiliary, rng)

    def reconstruct(self, observations, rng):
        self.keep(observations, rng)
        return torch.zeros(len(observations), 3, 16, 16)


class Asker(Spy, AttributeProbe):
    def fit(self, view, auxiliary, answers, classes, rng):
        self.keep(view, auxiliary, answers, classes, rng)

    def predict(self, observations, rng):
        self.keep(observations, rng)
        return torch.zeros(len(observations), 2)


class Seeker(Spy, IdentityProbe):
    def fit(self, view, auxiliary, rng):
        self.keep(view, auxiliary, rng)

    def rank(self, observations, view, gallery, rng):
        view.observe(gallery)
        self.keep(observations, rng)
        return torch.zeros(len(observations), len(gallery))


@pytest.fixture(scope="module")
def context():
    with pytest.MonkeyPatch.context() as patch:
        register(patch, tasks_toy="toy_task:Toy")
        yield RunContext.build(parse_suite(SUITE), CPU)


@pytest.fixture
def spies(context, tmp_path, monkeypatch):
    """Runs one spy of each kind against one exposure, as a run would, and returns them."""
    from leakgauge.harness.measurement import attack_run as attempt
    from leakgauge.harness.measurement import exposure as measure

    spies = [Seeker(), Painter(), Asker()]
    cells = plan(parse_suite({**SUITE, "attacks": [{"label": f"spy{i}", "name": "floor_mean"} for i in range(3)]}), "")
    by_label = {f"spy{i}": spy for i, spy in enumerate(spies)}
    monkeypatch.setattr(attempt, "build_attack", lambda config: by_label[config.label])
    states: list[str] = []
    measure.run_exposure(context, cells, RunFolder(tmp_path), lambda cell, status: states.append(status))
    assert states == ["done"] * 3
    return spies


def test_no_evaluation_image_can_be_reached(context, spies):
    for spy in spies:
        assert len(spy.handed) >= 4
        assert not holders(context.evaluation, *spy.handed), type(spy).__name__


def test_neither_the_context_nor_the_task_can_be_reached(context, spies):
    for spy in spies:
        found = reachable(*spy.handed)
        assert not [thing for thing in found if isinstance(thing, RunContext | AttackRun) or thing is context.task]


def test_nothing_is_left_behind_of_the_candidates(context, spies):
    ids = set(context.evaluation.ids)
    view = next(thing for thing in spies[1].handed if hasattr(thing, "observe"))
    for encoded in view._lines["own"]._encoded.values():
        assert not ids & set(encoded.ids)


def test_the_search_would_find_them(context):
    images = context.evaluation

    def closed_over() -> object:
        return images

    class Slotted:
        __slots__ = ("held",)

        def __init__(self) -> None:
            self.held = {"deep": [images.images()]}

    view_of_more = context.task.split("attacker").pixels
    for start in (images, closed_over, Slotted(), context, view_of_more, context.task.split, images.pixels.numpy()):
        assert holders(images, start)
    assert not holders(images, Streams(0), context.victim.model, images.ids)
