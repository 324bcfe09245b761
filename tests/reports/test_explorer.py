"""The image explorer: which images, which pictures, and whose scores stand beside them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import load_runs
from leakgauge.reports.writers import picture_sheets as sheets_module
from leakgauge.reports.writers.explorer import explorer_data, sheets_of
from leakgauge.reports.writers.first_screen import first_screen
from leakgauge.reports.writers.gallery import extreme_cases, gallery
from leakgauge.reports.writers.picture_sheets import picture_sheets, preferred_images


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    return load_runs([make_run(tmp_path_factory.mktemp("runs") / "toy")])[0]


@pytest.fixture(scope="module")
def data(run):
    return explorer_data(run, first_screen(run, point_rows(run), "k"), sheets_of(run, [extreme_cases(run)]))


def pixels(uri):
    kind, _, text = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


@pytest.mark.parametrize(("count", "wanted"), [(10, 24), (560, 24), (1, 6), (7, 6), (0, 6)])
def test_images_are_those_asked_for_and_others_spread_over_the_rest(count, wanted):
    found = preferred_images(count, [3, 3, count, -1], wanted)
    assert len(found) == len(set(found)) == min(count, wanted)
    assert set(found) <= set(range(count))
    assert found[:1] == [3] or count <= 3
    if count > 2 * wanted:
        assert max(np.diff(sorted(found))) <= 3 * count / wanted


def test_a_sheet_holds_the_pictures_of_its_cell(run, monkeypatch):
    monkeypatch.setattr(sheets_module, "QUALITY", 100)
    cell = next(str(c["cell"]) for c in run.cells_at(run.settings[0], "plain") if c["attack"] == "sharp")
    sheets = picture_sheets(run, [cell, "there is none"], [7, 2])
    assert list(sheets.uris) == ["originals", cell]
    assert sheets.images == tuple(range(10))
    assert sheets.place(cell, 7) == ("sheet1", 7)
    assert sheets.place("there is none", 7) is None
    assert sheets.place(cell, 10) is None
    stored = run.folder.read_images(cell, 10, 8, 8)
    shown = pixels(sheets.uris[cell])
    assert shown.shape == (8, 80, 3)
    # Noise is the worst that lossy compression meets, and still each picture is nearest to its own.
    means = np.array([[p[..., c].mean() for c in range(3)] for p in stored])
    for place in range(10):
        own = shown[:, 8 * place : 8 * place + 8].mean(axis=(0, 1))
        assert np.abs(means - own).sum(axis=1).argmin() == place


def test_what_does_not_fit_is_left_out_but_six_images_stay(run, monkeypatch):
    whole = sheets_of(run, [extreme_cases(run)])
    assert len(whole.images) == 10
    assert not whole.reduced
    monkeypatch.setattr(sheets_module, "BUDGET_BYTES", 1)
    first = [picture.index for picture in extreme_cases(run).strips[0].pictures]
    assert set(sheets_of(run, [extreme_cases(run)]).images) == set(first)
    monkeypatch.setattr(sheets_module, "LARGEST_SIDE", 4)
    small = sheets_of(run, [None])
    assert (small.height, small.width, small.reduced) == (4, 4, True)
    assert pixels(small.uris["originals"]).shape == (4, 24, 3)


def test_scores_are_those_of_the_image_and_the_attack(run, data):
    assert (data["images"], data["of"]) == (list(range(1, 11)), 10)
    point = next(p for p in data["settings"][0]["points"] if p["name"] == "merged")
    names = [attack["name"] for attack in point["attacks"]]
    assert "odd" not in names, "it failed here"
    assert [attack["name"] for attack in point["attacks"] if attack["floor"]] == ["flat"]
    rows = run.images[(run.images["operating_point"] == "merged")]
    for attack in point["attacks"]:
        own = rows[rows["attack"] == attack["name"]].sort_values("image")
        assert attack["psnr_db"] == pytest.approx(own["psnr_db"].tolist(), abs=0.006)
    rebuilt = {a["name"]: a["psnr_db"] for a in point["attacks"] if not a["floor"]}
    strongest = max(rebuilt, key=lambda name: sum(rebuilt[name]))
    assert [names[number] for number in point["strongest"]] == [strongest] * 10
    plain = next(p for p in data["settings"][0]["points"] if p["name"] == "plain")
    odd = next(attack for attack in plain["attacks"] if attack["name"] == "odd")
    assert odd["lpips"] == [None] * 10, "unscored is no zero"


def test_galleries_without_data_know_their_pictures(run):
    shown, bare = gallery(run, 3), gallery(run, 3, embedded=False)
    pairs = list(zip(shown.strips, bare.strips, strict=True))
    for one, other in ((a, b) for s, t in pairs for a, b in zip(s.pictures, t.pictures, strict=True)):
        assert other.uri == ""
        assert one.uri
        assert (one.cell, one.index, one.alt) == (other.cell, other.index, other.alt)
        assert other.index >= 0


def test_a_run_without_pictures_has_no_explorer(run, tmp_path, make_run):
    bare = make_run(tmp_path / "bare")
    for sheet in (tmp_path / "bare" / "reconstructions").iterdir():
        sheet.unlink()
    loaded = load_runs([bare])[0]
    assert sheets_of(loaded, [extreme_cases(loaded)]) is None
    assert explorer_data(loaded, first_screen(loaded, point_rows(loaded), "k"), None) is None
