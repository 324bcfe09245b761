"""A front is judged against baselines on the same images; what dominates is told from what only might."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_spaces import CPU, searched
from toy_task import register

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.scoring.statistics import Interval
from leakgauge.harness.search.results.dominance import relation
from leakgauge.harness.search.results.output import write_results
from leakgauge.harness.search.results.remeasure import remeasure_front
from leakgauge.harness.search.space import Remeasure
from leakgauge.harness.search.trials.trials import Tried
from leakgauge.harness.store.run_folder import RunFolder


def difference(mean, half):
    return Interval(mean, mean - half, mean + half, 10, 0)


@pytest.mark.parametrize(
    ("quality", "size", "expected"),
    [
        ((-1, 0.5), (-1, 0.5), "clearly dominates"),
        ((-1, 2), (-1, 0.5), "dominates"),
        ((0, 0), (-1, 0), "dominates"),
        ((0.1, 0.5), (-1, 0.5), "neither"),
        ((0, 0), (0, 0), "neither"),
        ((-1, 2), (-1, 2), "neither"),
        ((1, 2), (1, 0.5), "is dominated"),
        ((1, 0.5), (1, 0.5), "is clearly dominated"),
    ],
)
def test_relations(quality, size, expected):
    assert relation({"quality": difference(*quality), "payload_bytes": difference(*size)}) == expected


@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(0, 2)), min_size=1, max_size=4))
def test_the_other_sees_the_opposite(pairs):
    opposite = {
        "clearly dominates": "is clearly dominated",
        "dominates": "is dominated",
        "neither": "neither",
        "is dominated": "dominates",
        "is clearly dominated": "clearly dominates",
    }
    own = relation({str(i): difference(*pair) for i, pair in enumerate(pairs)})
    theirs = relation({str(i): difference(-mean, half) for i, (mean, half) in enumerate(pairs)})
    assert theirs == opposite[own]


def test_what_was_not_scored_is_no_relation():
    assert relation({"leakage": Interval(math.nan, math.nan, math.nan, 0, 8)}) == "unscored"


BASELINES = [
    {"name": "tome", "reduction": {"name": "tome", "r": 4}},
    {"name": "nothing_merged", "reduction": "none"},
]
HOW = Remeasure.model_validate(
    {"attacks": ["floor_mean", "ridge"], "threat_models": [{"auxiliary": {"n": 48}}], "evaluation_images": 16}
)
TOY = {"task": "toy", "defense": {"name": "split_pipeline", "cut": 1, "codec": "float16"}, "search_images": 4}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        register(patch, tasks_toy="toy_task:Toy")
        ready, records = searched(out, **TOY, baselines=BASELINES, trials=2)
        front = write_results(ready, Tried(records, []), out)
        remeasure_front(front, HOW, out, CPU, 1)
        yield front, out


def test_searched_stands_beside_measured(measured):
    front, out = measured
    table = pd.read_csv(out / "front_measured.csv")
    assert list(table["operating_point"]) == ["undefended", *(p.name for p in (*front.points, *front.baselines))]
    own = table.set_index("operating_point").loc[front.points[0].name]
    assert own["searched_quality"] == front.points[0].metrics["quality"]
    cells = RunFolder.open(out / "evaluation").cells()
    cell = cells[(cells["operating_point"] == front.points[0].name) & (cells["attack"] == "ridge")].iloc[0]
    assert own["measured_quality"] == cell["quality"]
    assert own["measured_leakage"] == pytest.approx(cell["leakage"])
    assert own["measured_leakage_lo"] == pytest.approx(cell["leakage_lo"])


def test_pairs_are_compared_image_by_image(measured):
    front, out = measured
    pairs = pd.read_csv(out / "dominance.csv")
    assert len(pairs) == len(front.points) * 3
    same = pairs[pairs["other"] == "nothing_merged"].drop(columns=["other", "relation"]).reset_index(drop=True)
    undefended = pairs[pairs["other"] == "undefended"].drop(columns=["other", "relation"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(same, undefended)
    cells = RunFolder.open(out / "evaluation").cells().drop_duplicates("operating_point").set_index("operating_point")
    row = pairs[pairs["other"] == "tome"].iloc[0]
    assert row["payload_bytes"] == pytest.approx(
        cells.loc[row["operating_point"], "payload_bytes"] - cells.loc["tome", "payload_bytes"]
    )


def test_remeasuring_resumes_and_repeats(measured):
    front, out = measured
    before = (out / "front_measured.csv").read_bytes(), (out / "dominance.csv").read_bytes()
    remeasure_front(front, HOW, out, CPU, 1)
    assert before == ((out / "front_measured.csv").read_bytes(), (out / "dominance.csv").read_bytes())


def test_a_space_that_names_no_attacks_cannot_be_measured_again(tmp_path):
    from leakgauge.harness.cli.search import search

    space = tmp_path / "space.yaml"
    space.write_text("name: bare\ntask: photos\nobjectives: [quality]\n")
    with pytest.raises(ConfigError, match=r"--remeasure.*add `remeasure:`"):
        search(str(space), out=tmp_path / "out", device="cpu", remeasure=True)
