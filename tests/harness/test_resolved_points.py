"""Thresholds that a suite leaves to calibration: in run.json, in ``inspect`` and in ``validate``."""

import json

import pytest
import torch
import yaml
from PIL import Image
from toy_task import Toy, register
from typer.testing import CliRunner

from leakgauge.harness.cli import app
from leakgauge.harness.contracts.defense import Defense
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.measurement import exposure as measure
from leakgauge.harness.run.inspect import resolved_text
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.preview import forecast
from leakgauge.harness.run.preview.forecast import LOOKED_AT, kept_tokens
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.reports.analysis.run import load_runs

CPU = torch.device("cpu")
KEEP = {"name": "threshold", "keep": 0.6}
SUITE = {
    "name": "kept",
    "task": "toy",
    "defense": {"name": "split_pipeline", "codec": "float16"},
    "operating_points": [
        {"name": "undefended"},
        {"name": "stated", "reduction": {"name": "threshold", "thresholds": 0.9}},
        {"name": "half", "reduction": KEEP},
        {"name": "control", "reduction": {"name": "random_merge", "match": KEEP}},
        {"name": "quarter", "reduction": {"name": "threshold", "share": [0.25, 0.0]}},
    ],
    "threat_models": [{"name": "server", "auxiliary": {"n": 48}}],
    "attacks": ["floor_mean", "ridge"],
    "evaluation_images": 24,
}


def quiet(done, total):
    pass


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    register(monkeypatch, tasks_toy="toy_task:Toy")


@pytest.fixture(scope="module")
def plan():
    with pytest.MonkeyPatch.context() as patch:
        register(patch, tasks_toy="toy_task:Toy")
        yield prepare(parse_suite(SUITE), CPU)


@pytest.fixture(scope="module")
def run(plan, tmp_path_factory):
    return run_suite(plan, tmp_path_factory.mktemp("runs") / "kept", CPU, 1, quiet)


def test_run_json_holds_the_thresholds_of_the_points_that_left_them_open(run):
    points = run.manifest()["operating_points"]
    assert set(points) == {"half", "control", "quarter"}
    assert points["half"] == points["control"]
    assert points["half"]["kept"] == pytest.approx(0.6, abs=0.1 / 17 + 1 / (8 * 17))
    assert points["half"]["images"] == 8
    assert points["quarter"]["shares"] == [0.25, 0.0]
    assert points["quarter"]["thresholds"][1] == 1.0
    stated = run.manifest()["suite"]["operating_points"]
    assert next(one for one in stated if one["name"] == "half")["reduction"] == KEEP, "the wish stays the wish"


def test_they_are_those_that_were_used(plan, run, tmp_path):
    """A suite that states them sends the same."""
    found = run.manifest()["operating_points"]["half"]["thresholds"]
    points = [{"name": "undefended"}, {"name": "half", "reduction": {"name": "threshold", "thresholds": found}}]
    other = run_suite(prepare(parse_suite(SUITE | {"operating_points": points}), CPU), tmp_path / "run", CPU, 1, quiet)
    assert other.manifest()["operating_points"] == {}
    numbers = ["attack", "tokens", "payload_bytes", "quality", "gflops_edge", "psnr_db"]
    rows = [one.cells().query("operating_point == 'half'")[numbers].reset_index(drop=True) for one in (run, other)]
    assert rows[0].equals(rows[1])


def test_a_resumed_run_still_says_them(plan, run, monkeypatch):
    before = run.manifest()["operating_points"]
    monkeypatch.setattr(measure, "measure_exposure", None)  # all is there: nothing is measured
    run_suite(plan, run.path, CPU, 1, quiet)
    assert run.manifest()["operating_points"] == before


def test_a_run_without_them_is_read(run, tmp_path):
    """As runs of before say nothing of them."""
    text = json.loads((run.path / "run.json").read_text())
    del text["operating_points"]
    for path in run.path.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(run.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (tmp_path / "run.json").write_text(json.dumps(text))
    assert len(load_runs([RunFolder.open(tmp_path)])[0].cells) == 10


def test_other_calibration_images_make_another_plan(plan, monkeypatch):
    whole = Toy.split

    def split(self, name):
        found = whole(self, name)
        return found.select(range(7)) if name == "calibration" else found

    monkeypatch.setattr(Toy, "split", split)
    other = prepare(parse_suite(SUITE), CPU)
    assert other.key != plan.key
    assert not {cell.key for cell in other.cells} & {cell.key for cell in plan.cells}


def test_tokens_kept_are_told_for_each_point(plan):
    found = {name: (images, kept) for name, images, kept in kept_tokens(plan.context)}
    assert list(found) == ["undefended", "stated", "half", "control", "quarter"]
    assert {images for images, _ in found.values()} == {min(LOOKED_AT, 8)}
    assert found["undefended"][1] == 1.0
    assert found["half"] == found["control"]
    assert found["half"][1] < found["quarter"][1] < 1


def test_a_defense_need_not_tell(plan, monkeypatch):
    class Silent(Defense):
        name = "silent"
        encode = send = respond = None

    Silent.__abstractmethods__ = frozenset()
    monkeypatch.setattr(forecast, "build_defense", lambda *_: Silent())
    assert list(kept_tokens(plan.context)) == []
    assert Silent().resolved() == {}


def test_what_cannot_be_kept_names_the_point(plan):
    points = [{"name": "undefended"}, {"name": "few", "reduction": {"name": "threshold", "keep": 0.1}}]
    context = prepare(parse_suite(SUITE | {"operating_points": points}), CPU).context
    with pytest.raises(ConfigError, match=r"keep = 0.1 cannot be reached"):
        list(kept_tokens(context))


def test_validate_and_inspect_print_them(tmp_path, photographs):
    suite, picture = tmp_path / "kept.yaml", tmp_path / "picture.png"
    suite.write_text(yaml.safe_dump(SUITE))
    Image.fromarray(photographs.pixels[0].permute(1, 2, 0).numpy()).save(picture)
    done = CliRunner().invoke(app, ["validate", str(suite), "--device", "cpu"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "operating point undefended: keeps 100.0% of the tokens of 8 calibration images" in done.output
    assert "operating point half: keeps " in done.output
    command = ["inspect", str(picture), "--suite", str(suite), "--defense", "half", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, "--device", "cpu"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "calibrated: thresholds 0." in done.output
    assert ", images 8" in done.output


def test_the_line_is_empty_where_nothing_was_calibrated():
    assert resolved_text({}) == ""
    assert resolved_text({"thresholds": [0.9123456789, 1.0], "images": 8}) == (
        "calibrated: thresholds 0.912346 1, images 8"
    )
