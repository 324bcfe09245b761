"""The curves of quality over cost, on the shipped task."""

import pytest
import torch

from leakgauge.benchmarks.studies.curves import points
from leakgauge.benchmarks.studies.curves.__main__ import _identity, _measured, _tasks, _write, main
from leakgauge.benchmarks.studies.curves.drawing import Panel, draw_curves
from leakgauge.benchmarks.tasks.photo_crops.photos import Photos
from leakgauge.harness.errors import ConfigError


class FewPhotos(Photos):
    def split(self, name):
        return super().split(name).select(range(48))


@pytest.fixture(scope="module")
def measured():
    patch = pytest.MonkeyPatch()
    patch.setattr(points, "SHARES", (0.1, 0.4))
    patch.setattr(points, "FIXED_SHARES", (0.05,))
    patch.setattr(points, "KEPT", (0.5,))
    found = points.measure_curves(FewPhotos(), torch.device("cpu"), lambda _: None)
    patch.undo()
    return found


@pytest.mark.slow
def test_controls_send_exactly_as_many_tokens_as_their_reference(measured):
    by = {(p.method, p.strength): p for p in measured}
    for share in ("10%", "40%"):
        reference = by["threshold", f"{share} of matches"]
        for control in ("random_merge", "random_drop"):
            assert by[control, f"as threshold at {share}"].tokens == reference.tokens


@pytest.mark.slow
def test_shares_are_of_the_unreduced_model(measured):
    base = measured[0]
    assert (base.method, base.flops_share, base.tokens_share, base.bytes_share) == ("none", 1.0, 1.0, 1.0)
    assert base.tokens == 65
    for point in measured[1:]:
        assert point.flops_share == pytest.approx(point.gflops / base.gflops)
        assert 0 < point.tokens_share < 1
        assert point.quality_lo <= point.quality <= point.quality_hi
        assert point.bytes_share < 1


@pytest.mark.slow
def test_a_control_is_not_charged_for_its_reference(measured):
    by = {(p.method, p.strength): p for p in measured}
    assert by["random_drop", "as threshold at 40%"].gflops < by["threshold", "40% of matches"].gflops * 1.001


@pytest.mark.slow
def test_the_figure_is_drawn(measured, tmp_path):
    draw_curves([Panel("photos", "top-1 accuracy", measured)], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 20_000
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


@pytest.mark.parametrize("text", ["task: photos", "- photos", "[", "- {name: photos}"])
def test_a_file_that_lists_no_tasks_is_refused(tmp_path, text):
    path = tmp_path / "tasks.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        _tasks(path)


def test_tasks_are_read(tmp_path):
    path = tmp_path / "tasks.yaml"
    path.write_text("- {title: Crops, name: photos}")
    ((title, task),) = _tasks(path)
    assert (title, task.name) == ("Crops", "photos")


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_stopped(measured, tmp_path, monkeypatch):
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text("- {title: One, name: photos}\n- {title: Two, name: photos}\n")
    monkeypatch.setattr("leakgauge.benchmarks.studies.curves.__main__.create", lambda *_, **__: FewPhotos())
    monkeypatch.setattr("leakgauge.benchmarks.studies.curves.__main__._identity", lambda _: "same")
    _write([Panel("One", "top-1 accuracy", measured[:3], "same")], tmp_path)
    given = []

    def measure(task, device, say, known):
        given.append(list(known))
        return measured[:4]

    monkeypatch.setattr("leakgauge.benchmarks.studies.curves.__main__.measure_curves", measure)
    main(tasks, out=tmp_path, device="cpu", threads=None)
    assert given == [measured[:3], measured[:3]], "what the first task wrote must not hide what was measured before"
    assert _measured(tmp_path)["same"] == measured[:4] * 2
    assert _measured(tmp_path / "nothing here") == {}


def test_what_decides_the_points_names_a_task():
    assert _identity(FewPhotos()) != _identity(Photos())
