"""What was read: the record that every run holds, and the warning of a victim that cannot do its task."""

import json

import pytest
import torch
from toy_task import COUNTS, Toy, register

from leakgauge.harness.contracts.reading import class_counts
from leakgauge.harness.measurement.undefended import _near, undefended
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.suite.schema import parse_suite


class Sharp(Toy):
    """The toy task with a victim that is right as often as told: every image whose place is below ``right``."""

    right = 1.0

    def quality(self, output, target):
        return (torch.arange(len(target)) < self.right * len(target)).float()


def suite(task: str = "toy", **more):
    return parse_suite(
        {
            "name": "toy",
            "description": "",
            "task": {"name": task},
            "defense": {"name": "split_pipeline", "cut": 1},
            "operating_points": [{"name": "undefended"}],
            "channels": ["ideal"],
            "attacks": ["floor_mean"],
            **more,
        }
    )


@pytest.fixture
def plan(monkeypatch):
    register(monkeypatch, tasks_toy="toy_task:Toy", tasks_sharp="test_reading:Sharp")
    return lambda *args, **more: prepare(suite(*args, **more), torch.device("cpu"))


def test_a_task_that_says_nothing_is_read_all_the_same(plan):
    reading = plan().reading
    assert reading.splits == COUNTS
    assert sum(reading.classes["0"].values()) == (Toy().split("attacker").labels == 0).sum() + sum(
        int((Toy().split(name).labels == 0).sum()) for name in ("calibration", "search", "evaluation")
    )
    stored = json.loads(json.dumps(reading.to_json()))
    said = {"victim": "tiny", "sha256": "none", "source": "not stated", "dtype": "float32", "decoding": ""}
    assert stored["weights"] == said
    assert stored["used"] == sum(COUNTS.values())
    assert stored["preprocessing"]["mean"] == [0.5] * 3


@pytest.mark.parametrize(("right", "warned"), [(0.3, True), (0.4, True), (0.5, False), (1.0, False)])
def test_a_victim_near_chance_is_a_warning(plan, monkeypatch, right, warned):
    monkeypatch.setattr(Sharp, "right", right)
    reading = plan("sharp").reading
    assert reading.undefended.chance == 0.25  # four classes of equal size
    assert bool(reading.all_warnings()) is warned
    assert all("near chance" in text for text in reading.to_json()["warnings"])


def test_few_images_cannot_tell_from_chance():
    assert "too few" in _near(0.75, 0.5, 4, "accuracy", "v")
    assert not _near(0.75, 0.5, 100, "accuracy", "v")
    assert "says nothing" in _near(1.0, 1.0, 9, "accuracy", "v")


def test_agreement_with_a_victim_that_always_says_the_same_is_a_warning(plan):
    context = plan().context
    object.__setattr__(context.task, "classes", 0)  # agreement: targets are the victim's own outputs
    object.__setattr__(context, "top1", torch.zeros(len(context.evaluation), dtype=torch.long))
    assert "the same class" in undefended(context).warning
    object.__setattr__(context, "top1", torch.arange(len(context.evaluation)))
    assert not undefended(context).warning


def test_classes_are_counted_by_split_and_name():
    task = Toy()
    counts = class_counts({name: task.split(name) for name in ("attacker", "search")}, {1: "cat"})
    assert counts["cat"] == {name: int((task.split(name).labels == 1).sum()) for name in ("attacker", "search")}
    assert list(counts) == ["0", "cat", "2", "3"]
