import errno
import json
import os
from dataclasses import replace

import numpy as np
import pytest

from leakgauge.harness.errors import StoreError
from leakgauge.harness.store.cell_record import FailedRecord
from leakgauge.harness.store.run_folder import RunFolder, write_atomic
from leakgauge.harness.system.files.sheet import read_sheet, sheet
from leakgauge.harness.values import stored_shapes
from leakgauge.harness.values.columns import CELL_COLUMNS, IMAGE_COLUMNS
from leakgauge.harness.values.learning_curve import CurvePoint, LearningCurve, convergence_failure, plateau_failure
from tests.harness.made_records import record

KEY = "0123456789abcdef"
NAMES = ("task", "defense", "operating_point", "channel", "attack", "threat_model")
PART = {
    "identity": {"cell": KEY, **dict.fromkeys(NAMES, "x"), "snr_db": None, "seed": 0},
    "status": "done",
    "costs": {},
    "latency_ms": 1.0,
    "floor": False,
}


def test_sheets_are_lossless(tmp_path):
    run = RunFolder(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
    run.write_images(KEY, images)
    assert np.array_equal(run.read_images(KEY, 7, 6, 5), images)
    with pytest.raises(StoreError):
        run.read_images(KEY, 7, 5, 6)


def test_no_bit_of_a_sheet_changes_unseen(tmp_path):
    path, rng = tmp_path / "sheet.png", np.random.default_rng(0)
    data = sheet(rng.integers(0, 256, (4, 4, 4, 3), dtype=np.uint8), KEY)
    path.write_bytes(data)
    read_sheet(path, (8, 8), 4, KEY)
    unseen = []
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(changed)
        try:
            read_sheet(path, (8, 8), 4, KEY)
            unseen.append(bit)
        except StoreError:
            pass
    assert not unseen


def test_tables_round_trip_with_unscored_numbers(tmp_path):
    run = RunFolder(tmp_path)
    cell = {"cell": KEY, "attack": "nan", "seed": 0, "n": 3, "psnr_db": 12.345678901234567, "lpips": float("nan")}
    image = {"cell": KEY, "seed": 0, "label": -1, "group": 0, "image": "NA"}
    run.write_tables([cell], [image])
    cells, images = run.cells(), run.images()
    assert list(cells.columns) == [c.name for c in CELL_COLUMNS]
    assert list(images.columns) == [c.name for c in IMAGE_COLUMNS]
    assert cells.loc[0, "attack"] == "nan"
    assert cells.loc[0, "psnr_db"] == 12.345678901234567
    assert np.isnan(cells.loc[0, "lpips"])
    assert images.loc[0, "image"] == "NA"


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"schema_version": 99}'])
def test_manifests_that_cannot_be_trusted_are_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(StoreError) as caught:
        RunFolder.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_keeps_the_old_file_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_atomic(path, b"old")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_parts_count_only_when_complete(tmp_path):
    run = RunFolder(tmp_path)
    run.write_part(record({**PART, "scores": {"psnr_db": [float("nan")]}}))
    (tmp_path / "parts" / ".b.json.tmp").write_text("{")
    assert run.done() == {KEY}
    assert np.isnan(run.read_part(KEY).scores["psnr_db"][0])
    (tmp_path / "parts" / f"{'c' * 16}.json").write_text("{")
    with pytest.raises(StoreError):
        run.read_part("c" * 16)


def test_a_part_may_quote_anything_and_is_read_again(tmp_path):
    run = RunFolder(tmp_path)
    whole = record({**PART, "scores": {}})
    run.write_part(replace(whole, unconverged="\x1b[2J \ud800\r", unscored={"\u202e": "x"}))
    assert run.read_part(KEY).unconverged == "\\x1b[2J \\ud800\\r"
    run.write_part(FailedRecord(whole.head, "\x1b[2J \ud800\r", "\ud800"))
    assert run.read_part(KEY).reason == "\\x1b[2J \\ud800\\r"


@pytest.mark.parametrize("damage", ["bit", "swapped", "cut short"])
def test_a_part_that_changed_is_not_read(tmp_path, damage):
    run, other = RunFolder(tmp_path), "f" * 16
    for key, value in ((KEY, 12.5), (other, 13.5)):
        run.write_part(record({**PART, "identity": {"cell": key}, "scores": {"psnr_db": [value]}}))
    first, second = (tmp_path / "parts" / f"{key}.json" for key in (KEY, other))
    data = first.read_bytes()
    changed = {"bit": data.replace(b"12.5", b"13.5"), "swapped": second.read_bytes(), "cut short": data[:-9]}
    first.write_bytes(changed[damage])
    said = {"bit": "its checksum fails", "swapped": "it is of another cell", "cut short": "part cannot be read"}
    with pytest.raises(StoreError, match=said[damage]):
        run.read_part(KEY)
    assert run.read_part(other).scores == {"psnr_db": [13.5]}


@pytest.mark.parametrize("damage", ["bit", "swapped", "cut short"])
def test_pictures_that_changed_are_not_read(tmp_path, damage):
    run, other = RunFolder(tmp_path), "f" * 16
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    run.write_images(KEY, images)
    run.write_images(other, images[::-1].copy())
    first, second = (tmp_path / "reconstructions" / f"{key}.png" for key in (KEY, other))
    images[1, 2, 3, 0] ^= 1  # of one pixel; the file stays a sound PNG
    data, changed = first.read_bytes(), sheet(images, KEY)
    # What is written before the pixels stays: whose they are and their checksum.
    bit = data[: data.index(b"IDAT") - 4] + changed[changed.index(b"IDAT") - 4 :]
    first.write_bytes({"bit": bit, "swapped": second.read_bytes(), "cut short": data[:-30]}[damage])
    with pytest.raises(StoreError, match="cannot read the images"):
        run.read_images(KEY, 2, 6, 5)
    assert len(run.read_images(other, 2, 6, 5)) == 2


def curve_of(values, planned=None):
    curve = LearningCurve(planned or 10 * len(values))
    for i, value in enumerate(values):
        curve.add(10 * (i + 1), 1.0, value)
    return curve


def test_plateau_test():
    flat = [10, 15, 18, 19, 19.5, 19.8, 19.9, 19.95, 19.97, 19.98]
    assert plateau_failure(curve_of(flat)) is None
    assert "still gaining" in plateau_failure(curve_of(list(range(10))))
    assert "stopped at step" in plateau_failure(curve_of(flat, planned=1000))
    assert "only 90 optimiser steps" in plateau_failure(curve_of(flat[1:]))
    assert "only 2 points" in plateau_failure(curve_of([1, 2]))
    assert "still gaining" in plateau_failure(curve_of([float("nan")] * 10))


def test_convergence_needs_the_step_doubling_check():
    flat = curve_of([10, 15, 18, 19, 19.5, 19.8, 19.9, 19.95, 19.97, 19.98])
    assert "was not run" in convergence_failure(flat)
    flat.doubling_gain_db = 1.45
    assert "twice the steps gain +1.45 dB" in convergence_failure(flat)
    flat.doubling_gain_db = float("nan")
    assert convergence_failure(flat)
    flat.doubling_gain_db = 0.1
    assert "only one doubling" in convergence_failure(flat)
    for quarter, failure in ((19.8, None), (19.6, None), (18.0, "from a quarter to half"), (float("nan"), "quarter")):
        flat.compare(CurvePoint(50, 1.0, 19.88), CurvePoint(25, 1.0, quarter))
        found = convergence_failure(flat)
        assert found is None if failure is None else failure in found
    assert "still gaining" in convergence_failure(curve_of(list(range(10))))


def test_curves_round_trip(tmp_path):
    run, curve = RunFolder(tmp_path), curve_of([1.0, 2.0])
    run.write_curve(KEY, curve)
    assert run.read_curve(KEY) == curve
    assert run.read_curve("b" * 16) is None
    assert json.loads((tmp_path / "attacks" / f"{KEY}.json").read_text())["planned_steps"] == 20


@pytest.mark.parametrize(
    "key", ["", "a", "../../etc/passwd", "/etc/passwd", KEY.upper(), KEY + "0", f"{KEY}\n", "originals/.."]
)
def test_what_is_no_key_never_becomes_a_path(tmp_path, key):
    run = RunFolder(tmp_path / "run")
    calls = (
        lambda: run.read_images(key, 1, 1, 1),
        lambda: run.write_images(key, np.zeros((1, 1, 1, 3), np.uint8)),
        lambda: run.read_curve(key),
        lambda: run.read_part(key),
        lambda: run.write_part(record({"identity": {"cell": key}})),
        lambda: run.drop_part(key),
    )
    for call in calls:
        with pytest.raises(StoreError, match="names no cell"):
            call()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("checked", "typed"),
    [
        (stored_shapes.Manifest, stored_shapes.RunManifest),
        (stored_shapes.TaskEntry, stored_shapes.TaskStatement),
        (stored_shapes.AttackEntry, stored_shapes.AttackStatement),
        (stored_shapes.StoredSession, stored_shapes.SessionStatement),
    ],
)
def test_what_is_checked_of_run_json_is_what_its_type_states(checked, typed):
    assert set(checked.model_fields) <= set(typed.__annotations__)
