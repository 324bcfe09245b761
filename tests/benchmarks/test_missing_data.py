"""What a machine lacks for a task of public data is named, all of it at once, before anything is loaded."""

from __future__ import annotations

import importlib.util

import pytest

from leakgauge.benchmarks.tasks.public_questions import pictured_questions
from leakgauge.benchmarks.tasks.public_questions.gqa import Gqa
from leakgauge.harness.errors import DataError
from leakgauge.harness.run.plan import check_complete
from leakgauge.harness.suite.schema import load_suite

HUB = {"path": "hub", "model": "org/model", "pretrained": True, "dtype": "bfloat16"}


@pytest.fixture
def reachable(monkeypatch):
    """Sets what is in reach: the hub, the library datasets, a GPU."""

    def choose(*, hub: bool, datasets: bool, gpu: bool):
        found = importlib.util.find_spec
        monkeypatch.setattr(pictured_questions, "on_hub", lambda *_: hub)
        monkeypatch.setattr(pictured_questions.torch.cuda, "is_available", lambda: gpu)
        spec = object() if datasets else None
        monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: spec if n == "datasets" else found(n, *a))

    return choose


def test_all_that_is_missing_is_named(reachable):
    reachable(hub=False, datasets=False, gpu=False)
    missing = " | ".join(Gqa(**HUB).missing())
    assert [word in missing for word in ("leakgauge[data]", "org/model", "a GPU")] == [True] * 3
    reachable(hub=False, datasets=True, gpu=True)
    questions, weights = Gqa(**HUB).missing()
    assert "lmms-lab/GQA" in questions
    assert "org/model" in weights


def test_nothing_is_missing_where_all_is_in_reach(reachable):
    reachable(hub=True, datasets=True, gpu=False)
    assert Gqa(**HUB).missing() == ()


@pytest.mark.parametrize("suite", ["vqa-paper", "vqa-paper-scienceqa"])
def test_the_papers_suites_say_what_they_lack(reachable, suite):
    reachable(hub=False, datasets=False, gpu=False)
    with pytest.raises(DataError, match=r"3 missing: the library datasets.*llava-1.5-7b-hf.*a GPU"):
        check_complete(load_suite(suite))


def test_embedded_tasks_lack_nothing():
    check_complete(load_suite("vqa-quick"))
