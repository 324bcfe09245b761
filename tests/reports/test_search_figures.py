"""Figures of a search show every point of its tables."""

from __future__ import annotations

import pandas as pd
import pytest

from leakgauge.harness.errors import StoreError
from leakgauge.harness.search.results.front import Front, write_front
from leakgauge.reports.figures.search_figures import (
    family_of,
    front_figure,
    hypervolume_figure,
    shares_figure,
    write_search_figures,
)

METRICS = [
    {"quality": 0.9, "gflops_total": 0.3, "payload_bytes": 9000, "leakage": 6.0},
    {"quality": 0.8, "gflops_total": 0.1, "payload_bytes": 900, "leakage": 1.0},
]


def point(name, metrics, shares=None):
    return {"name": name, "channel": {"name": "ideal"}, "metrics": metrics, "shares": shares}


def front(*objectives) -> Front:
    return Front.model_validate(
        {
            "space": "s",
            "task": {"name": "photos"},
            "defense": {"name": "split_pipeline"},
            "quality_name": "accuracy",
            "objectives": objectives,
            "reference": {},
            "quality_base": 0.9,
            "undefended": METRICS[0],
            "operating_points": [{"name": "s-0"}, {"name": "s-1"}],
            "baseline_points": [{"name": "tome_r1"}, {"name": "tome_r8"}, {"name": "top_k_0.50"}],
            "points": [point("s-0", METRICS[0], [0.1, 0.2]), point("s-1", METRICS[1], [0.9, 0.8])],
            "baselines": [point("tome_r1", METRICS[0]), point("tome_r8", METRICS[1]), point("top_k_0.50", METRICS[1])],
        }
    )


TRIALS = pd.DataFrame(
    [
        {"trial": i, "front_point": name, "share_0": 0.1 * i, "share_1": 0.2, **METRICS[i % 2]}
        for i, name in enumerate(["s-0", "s-1", None])
    ]
)


@pytest.mark.parametrize(
    ("name", "family"), [("tome_r8", "tome"), ("threshold_0.90", "threshold"), ("top_k_0.5", "top_k")]
)
def test_baselines_belong_to_families(name, family):
    assert family_of(name) == family


@pytest.mark.parametrize(
    ("objectives", "panels"),
    [
        (("quality", "payload_bytes"), 1),
        (("quality", "gflops_total", "payload_bytes"), 3),
        (("quality", "gflops_total", "payload_bytes", "leakage"), 6),
    ],
)
def test_every_pair_of_objectives_has_a_panel(objectives, panels):
    figure = front_figure(TRIALS, front(*objectives))
    drawn = [axes for axes in figure.axes if axes.get_visible()]
    assert len(drawn) == panels
    for axes in drawn:
        labels = [line.get_label() for line in axes.lines]
        assert labels == ["trials", "tome", "top_k", "front", "undefended"]
        assert len(axes.lines[0].get_xdata()) == 3
        assert len(axes.lines[3].get_xdata()) == 2


def test_a_line_for_every_trial_that_is_not_on_the_front_and_one_for_each_that_is():
    figure = shares_figure(TRIALS, front("quality"))
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[0.2, 0.2], [0.9, 0.8], [0.1, 0.2]]


def test_figures_are_files_that_repeat_byte_by_byte(tmp_path):
    write_front(front("quality", "payload_bytes"), tmp_path / "front.json")
    TRIALS.to_csv(tmp_path / "trials.csv")
    volumes = pd.DataFrame({"trials": [1, 2, 3], "hypervolume": [0.1, 0.2, 0.2]})
    assert list(hypervolume_figure(volumes).axes[0].lines[0].get_ydata()) == [0.1, 0.2, 0.2]
    with pytest.raises(StoreError, match=r"hypervolume\.csv"):
        write_search_figures(tmp_path)
    volumes.to_csv(tmp_path / "hypervolume.csv")
    first = {path: path.read_bytes() for path in write_search_figures(tmp_path)}
    assert {path.suffix for path in first} == {".svg", ".png"}
    assert {path: path.read_bytes() for path in write_search_figures(tmp_path)} == first
