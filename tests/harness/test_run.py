"""Whole runs: determinism, resume after kill -9, re-scoring, reports, and clear errors.

What is measured is that of suite ``smoke``; what has to run in processes of its own is a smaller one.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from toy_task import install, register

from leakgauge.harness import cli
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.schema import load_suite, parse_suite
from leakgauge.harness.values.columns import TIME_COLUMNS

CPU = torch.device("cpu")
COMMAND = [sys.executable, "-m", "leakgauge.harness.cli"]
POINTS = ["undefended", "threshold_0.90"]
SMALL = {
    "name": "small",
    "task": "toy",
    "defense": {"name": "split_pipeline", "cut": 1, "codec": "float16"},
    "operating_points": [
        {"name": "undefended"},
        {"name": "merged", "reduction": {"name": "threshold", "thresholds": 0.9}},
    ],
    "threat_models": [{"name": "server", "auxiliary": {"n": 48}}],
    "attacks": ["floor_mean", "ridge", {"name": "set_decoder", "steps": 30, "width": 32, "layers": 2}],
    "evaluation_images": 24,
}


def quiet(done, total):
    pass


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command in this process, which has imported what it needs."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["leakgauge", *map(str, arguments)])
        code, said = cli._code(), capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=said.out, stderr=said.err)

    return run


def timeless(run: RunFolder) -> pd.DataFrame:
    return run.cells().drop(columns=list(TIME_COLUMNS))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> RunFolder:
    return run_suite(prepare(load_suite("smoke"), CPU), tmp_path_factory.mktemp("runs") / "smoke", CPU, 1, quiet)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small suite: its plan, and its run by one worker."""
    with pytest.MonkeyPatch.context() as patch:
        register(patch, tasks_toy="toy_task:Toy")
        plan = prepare(parse_suite(SMALL), CPU)
        yield plan, run_suite(plan, tmp_path_factory.mktemp("runs") / "small", CPU, 1, quiet)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The small suite for commands in processes of their own: the file, and their environment."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    return folder / "small.yaml", {**os.environ, "PYTHONPATH": install(folder / "plugins")}


def test_every_cell_is_done_and_scored(smoke):
    cells = smoke.cells()
    assert list(cells["operating_point"].unique()) == POINTS
    assert (cells["status"] == "done").all()
    assert cells[["psnr_db", "ssim", "quality", "payload_bytes", "gflops_edge", "leakage"]].notna().all().all()
    assert smoke.manifest()["status"] == "complete"
    judge = smoke.manifest()["judge"]
    assert (judge["name"], judge["independent"], len(judge["weights_sha256"])) == ("alexnet", True, 64)
    assert cells[["judge_reid_top1", "judge_agreement"]].notna().all().all()
    assert cells["judge_agreement"].between(0, 1).all()
    tokens = cells.groupby("operating_point")["tokens"].first()
    assert tokens["undefended"] == 65
    assert tokens["threshold_0.90"] < 60
    flops = cells.groupby("operating_point")["gflops_edge"].first()
    # By hand: 3 blocks of 65 tokens and the patch embedding, 2 per multiply-add, attention included.
    block = 65 * 192 * 192 * 12 * 2 + 2 * 2 * 65 * 65 * 192
    assert flops["undefended"] == pytest.approx((3 * block + 64 * 192 * 192 * 2) / 1e9, rel=1e-6)
    assert flops["threshold_0.90"] < flops["undefended"]


def test_images_average_to_cells(smoke):
    cells, images = smoke.cells().set_index("cell"), smoke.images()
    for key, rows in images.groupby("cell"):
        assert rows["psnr_db"].mean() == pytest.approx(cells.loc[key, "psnr_db"])
        assert cells.loc[key, "psnr_db_lo"] <= cells.loc[key, "psnr_db"] <= cells.loc[key, "psnr_db_hi"]
        assert len(rows) == 48


@pytest.mark.slow
def test_two_workers_give_the_same_numbers(small, elsewhere, tmp_path, monkeypatch):
    plan, run = small
    monkeypatch.syspath_prepend(elsewhere[0].parent / "plugins")  # workers search where this process does
    other = run_suite(plan, tmp_path / "two", CPU, 2, quiet)
    pd.testing.assert_frame_equal(timeless(run), timeless(other), check_exact=True)
    pd.testing.assert_frame_equal(run.images(), other.images(), check_exact=True)


def test_kill_and_resume_give_the_same_numbers(small, elsewhere, tmp_path):
    (plan, run), (suite, environment), out = small, elsewhere, tmp_path / "killed"
    process = subprocess.Popen(
        [*COMMAND, "run", str(suite), "--out", str(out), "--device", "cpu", "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    deadline = time.monotonic() + 200
    while len(RunFolder(out).done()) < 2:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = RunFolder(out).done()
    assert 2 <= len(kept) < 6
    before = {path: path.stat().st_mtime_ns for path in (out / "parts").glob("*.json")}
    resumed = run_suite(plan, out, CPU, 1, quiet)
    assert resumed.manifest()["status"] == "complete"
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items()), "finished cells are not run again"
    pd.testing.assert_frame_equal(timeless(run), timeless(resumed), check_exact=True)


def test_ctrl_c_says_how_to_go_on(elsewhere, tmp_path):
    (suite, environment), out = elsewhere, tmp_path / "interrupted"
    process = subprocess.Popen(
        [*COMMAND, "run", str(suite), "--out", str(out), "--device", "cpu", "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A background shell starts its children with SIGINT ignored; a user's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    deadline = time.monotonic() + 200
    while not RunFolder(out).done():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to resume" in errors
    assert "Traceback" not in errors
    assert RunFolder.open(out).manifest()["status"] == "interrupted"


def test_rescoring_reproduces_the_run(smoke, command):
    before = smoke.cells()
    done = command("score", smoke.path, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(before, smoke.cells(), check_exact=False, rtol=1e-6)


def test_the_report_is_written(smoke, tmp_path, command):
    done = command("report", smoke.path, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for name in (*POINTS, "set_decoder", "ridge", "floor_mean"):
        assert name in page


def one_line(done, *words):
    assert done.returncode not in {0, 70}, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("operating_points.1.reduction.thresholds=1.5", ["1.5", "[-1, 1]"]),
        ("operating_points.1.reduction.thresholds=[0.9, 0.9]", ["2 thresholds for 3 edge blocks"]),
        ("operating_points.1.reduction.name=treshold", ["treshold", "did you mean 'threshold'"]),
        ("operating_points.1.codec=float61", ["float61", "did you mean"]),
        ("operating_points.1.kodec=float16", ["kodec", "did you mean 'codec'"]),
        ("attacks.1=rigde", ["rigde", "did you mean 'ridge'"]),
        ("threat_models=[{victim: none}]", []),
        ("task=fotos", ["fotos", "did you mean 'photos'"]),
        ("evaluation_image=4", ["evaluation_image", "did you mean 'evaluation_images'"]),
    ],
)
def test_mistakes_in_a_suite_are_one_line(override, words, command):
    done = command("validate", "smoke", "--set", override)
    if not words:
        assert done.returncode == 0, done.stderr
    else:
        one_line(done, *words)


def test_a_mistake_is_one_line_of_a_process_of_its_own():
    """Whatever else libraries have to say when they are imported."""
    command = [*COMMAND, "validate", "smoke", "--set", "attacks.1=rigde"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    one_line(done, "rigde", "did you mean 'ridge'")


def test_an_ungranted_attack_is_refused_before_anything_runs(tmp_path, command):
    out = tmp_path / "x"
    changes = ["--set", "attacks.0=floor_class_mean", "--set", "threat_models=[{victim: none}]"]
    one_line(command("run", "smoke", "--out", out, *changes), "floor_class_mean", "does not grant")
    assert not out.exists()


def test_folders_that_cannot_be_used(smoke, tmp_path, command):
    (tmp_path / "file").write_text("x")
    one_line(command("run", "smoke", "--out", tmp_path / "file" / "run"), "cannot write", "in the way")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    one_line(command("run", "smoke", "--out", tmp_path / "other"), "holds no run")
    one_line(command("run", "smoke", "--set", "seeds=[1]", "--out", smoke.path), "another suite")
    one_line(command("report", tmp_path / "nothing", "--out", tmp_path / "r"), "run.json is missing")
    old = tmp_path / "old"
    old.mkdir()
    (old / "run.json").write_text('{"schema_version": 99}')
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "run.json").write_text('{"schema_version": 1}')
    one_line(command("run", "smoke", "--out", tmp_path / "first"), "version 1", "not resumed")
    one_line(command("report", old, "--out", tmp_path / "r"), "version 99")


def test_missing_and_corrupt_weights(tmp_path):
    from leakgauge.benchmarks.victims.photos_vit import WEIGHTS, load_photos_vit
    from leakgauge.harness.errors import DataError

    with pytest.raises(DataError, match="missing"):
        load_photos_vit(tmp_path / "nothing.safetensors")
    shipped = Path(__file__).parents[2] / "benchmarks" / "victims" / WEIGHTS
    (tmp_path / "cut.safetensors").write_bytes(shipped.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be loaded"):
        load_photos_vit(tmp_path / "cut.safetensors")
