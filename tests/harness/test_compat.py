"""The private parts of other libraries that stand in ``compat`` are there, and do what is counted on."""

from __future__ import annotations

import ast
import io
import re
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib
import optuna
import pytest
from matplotlib.figure import Figure

from leakgauge.harness.system import compat

ROOT = Path(__file__).parents[2]
FOLDERS = ("harness", "attacks", "defenses", "benchmarks", "reports", "leakgauge")


def test_a_pool_ends_at_once():
    with ProcessPoolExecutor(1) as pool:
        waiting = pool.submit(time.sleep, 600)
        pool.submit(time.sleep, 0)
        while not waiting.running():
            time.sleep(0.01)
        compat.end_workers(pool)
    assert waiting.exception() is not None


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_trials_are_marked_and_failed_from_outside(tmp_path):
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'db'}", heartbeat_interval=60)
    study = optuna.create_study(storage=storage)
    study.ask()
    [trial] = study.get_trials()
    compat.mark_trial(study, trial, "begun", True)
    assert study.get_trials()[0].user_attrs == {"begun": True}
    assert compat.trial_id(trial) > 0
    compat.fail_trial(study, trial)
    assert study.get_trials()[0].state is optuna.trial.TrialState.FAIL


def test_nothing_private_of_other_libraries_is_used_elsewhere():
    found = []
    for path in (p for folder in FOLDERS for p in (ROOT / folder).glob("**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and re.search(r"(^|\.)_[a-z]", node.module):
                found.append((path.name, node.module))
            if isinstance(node, ast.Attribute) and node.attr in {"_storage", "_trial_id", "_processes"}:
                found.append((path.name, node.attr))
    assert {name for name, _ in found} == {"compat.py"}


def test_a_font_is_cut_once_for_the_same_signs_and_files_stay_the_same(monkeypatch):
    from matplotlib.backends import _backend_pdf_ps as embedding

    def written() -> bytes:
        figure, stream = Figure(), io.BytesIO()
        figure.text(0.5, 0.5, "the same signs")
        with matplotlib.rc_context({"pdf.fonttype": 42}):
            figure.savefig(stream, format="pdf", metadata={"CreationDate": None})
        return stream.getvalue()

    alone, cut, calls = written(), embedding.get_glyphs_subset, []
    monkeypatch.setattr(embedding, "get_glyphs_subset", lambda *given: calls.append(given) or cut(*given))
    with compat.shared_font_subsets():
        assert [written(), written()] == [alone, alone]
    assert len(calls) == 1
    written()
    assert len(calls) == 2


def test_a_matplotlib_that_cuts_fonts_elsewhere_draws_all_the_same(monkeypatch):
    from matplotlib.backends import _backend_pdf_ps as embedding
    from matplotlib.backends import backend_pdf

    with monkeypatch.context() as patch:
        patch.delattr(embedding, "get_glyphs_subset")
        with compat.shared_font_subsets():
            assert not hasattr(embedding, "get_glyphs_subset")
    with monkeypatch.context() as patch:
        patch.delattr(backend_pdf, "_backend_pdf_ps")
        with compat.shared_font_subsets():
            pass
