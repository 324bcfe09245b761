"""The front: feasible trials of one channel that none of its others dominates; and what a proxy's leakage is above."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from search_spaces import small

from leakgauge.harness.search.objectives import Objectives
from leakgauge.harness.search.results.front import front_of
from leakgauge.harness.search.trials.proxy import LeakageProxy
from leakgauge.harness.search.trials.trials import TrialRecord
from leakgauge.harness.suite.schema import PluginConfig

OBJECTIVES = Objectives(
    small(objectives=["quality", "payload_bytes"], reference={"quality": 0.1}), {"quality": 0.9, "payload_bytes": 100.0}
)


def trial(number, quality, size, excess=0.0, snr_db=10):
    channel = PluginConfig(name="awgn", snr_db=snr_db)
    metrics = {"quality": quality, "payload_bytes": size}
    return TrialRecord(number, {}, {}, channel, (), metrics, {"limit": excess})


def test_what_breaks_a_limit_or_is_dominated_on_its_channel_is_left_out():
    good, cheap, dominated = trial(0, 0.8, 60), trial(1, 0.6, 20), trial(2, 0.7, 70)
    broken, elsewhere = trial(3, 0.9, 10, excess=0.01), trial(4, 0.3, 90, snr_db=0)
    found = front_of([good, cheap, dominated, broken, elsewhere], OBJECTIVES)
    assert {record.number for record in found} == {0, 1, 4}
    assert trial(5, 0.5, 5, excess=0.0).feasible
    assert not broken.feasible


def test_a_proxy_s_leakage_is_above_the_floor_that_is_best_on_average(monkeypatch):
    proxy = object.__new__(LeakageProxy)
    scores = {"attack": [20.0, 20.0], "low": [4.0, 9.0], "high": [8.0, 6.0]}
    monkeypatch.setattr(LeakageProxy, "_psnr_db", lambda self, config, *a: torch.tensor(scores[config]))
    monkeypatch.setattr("leakgauge.harness.search.trials.proxy.GrantedView", MagicMock)
    monkeypatch.setattr("leakgauge.harness.search.trials.proxy.observe", lambda *a: None)
    proxy._proxy = SimpleNamespace(attack="attack", floors=("low", "high"), threat_model=None)
    proxy._images = SimpleNamespace(pixels=torch.zeros(2, 3, 4, 4))
    proxy._context = SimpleNamespace(victim=None, batch_size=None, device=None)
    point = SimpleNamespace(transmission=None, output=None, preparation=None)
    assert proxy.leakage(SimpleNamespace(grid=(1, 1)), point) == pytest.approx((12 + 14) / 2)
