"""``import leakgauge``: the whole job in a few lines, without a YAML file."""

from __future__ import annotations

import doctest
import subprocess
import sys

import pandas as pd
import pytest
from toy_task import register

import leakgauge
from leakgauge import front_door

KEYS = {
    "task": "toy",
    "attacks": ["floor_mean", "ridge"],
    "metrics": ["psnr_db"],
    "judge": "victim",
    "evaluation_images": 12,
    "defense": {"name": "split_pipeline", "cut": 1},
    "threat_models": [{"name": "server", "auxiliary": {"n": 48}}],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    point = leakgauge.OperatingPoint("threshold", thresholds=0.9)
    seen: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        register(patch, tasks_toy="toy_task:Toy")
        found = leakgauge.run(
            points=["undefended", point],
            out=tmp_path_factory.mktemp("door") / "run",
            workers=1,
            device="cpu",
            progress=lambda done, total: seen.append((done, total)),
            **KEYS,
        )
        assert seen[-1] == (4, 4)
        yield found


def test_what_a_run_tells(run):
    assert list(run.points["operating_point"]) == ["undefended", "threshold_0.9"]
    assert run.points["tokens"].is_monotonic_decreasing
    assert len(run.cells) == 4
    assert len(run.images) == 4 * 12
    assert run.suite.task.name == "toy"
    assert "complete, 4 cells" in repr(run)
    again = leakgauge.open_run(run.path)
    pd.testing.assert_frame_equal(again.cells, run.cells)


def test_a_notebook_shows_it(run):
    page = run._repr_html_()
    assert page.count("<img") == 6 * (1 + 1 + 2)
    assert "threshold_0.9" in page
    assert "data:image/png;base64," in run.gallery()
    figure = run.frontier("tokens")
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert figure.axes[0].get_xlabel() == "tokens"
    with pytest.raises(leakgauge.LeakgaugeError, match="one of quality, tokens"):
        run.frontier("beauty")


def test_report_compare_and_gate(run, tmp_path):
    page = run.report(tmp_path / "report")
    assert page.name == "index.html"
    assert page.stat().st_size > 10_000
    assert {row.outcome for row in run.compare(run).rows} <= {"identical", "not comparable"}
    recorded = run.baseline(tmp_path / "baseline.json")
    for known in (recorded, tmp_path / "baseline.json"):
        judged = run.gate(known)
        assert judged.checks
        assert judged.outcome != "exceeds"


def test_a_suite_may_be_named_or_given_and_mistakes_have_their_names():
    assert front_door._resolved("smoke", ["undefended"], {}).operating_points[0].name == "undefended"
    suite = front_door._resolved("smoke", None, {"evaluation_images": 7})
    assert suite.evaluation_images == 7
    assert front_door._resolved(suite, None, {}) == suite
    with pytest.raises(leakgauge.LeakgaugeError, match=r"run\(\): "):
        leakgauge.run(task="photos")
    with pytest.raises(AttributeError, match="no attribute 'rnu'"):
        _ = leakgauge.rnu


def test_everything_that_is_named_is_there():
    for name in leakgauge.__all__:
        assert getattr(leakgauge, name) is not None
    assert set(leakgauge.__all__) == {"__version__", *leakgauge._PLACE_OF} == set(dir(leakgauge))


def test_examples_in_docstrings_run():
    for module in (leakgauge, front_door):
        found = doctest.testmod(module)
        assert found.attempted
        assert not found.failed


def test_importing_it_imports_nothing_heavy():
    program = (
        "import sys, leakgauge; leakgauge.__version__; print([m for m in ('torch', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
