"""``leakgauge inspect``: the picture and the table of one photograph, and errors in one line."""

import io
from importlib.resources import files

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from leakgauge.benchmarks.tasks.own_images.imagefolder import ImageFolder
from leakgauge.benchmarks.tasks.photo_crops.photos import Photos
from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.harness import cli
from leakgauge.harness.contracts.defense import inspectable
from leakgauge.harness.errors import ConfigError, LeakgaugeError
from leakgauge.harness.run.inspect import inspect_photograph
from leakgauge.harness.suite.schema import load_suite
from leakgauge.harness.values.decoding import decode
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams

CPU = torch.device("cpu")
THRESHOLD = {"name": "threshold", "thresholds": 0.80}
RANDOM = {"name": "random_merge", "match": {"name": "threshold", "thresholds": 0.90}}


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "coffee.png"
    path.write_bytes((files("skimage") / "data" / "coffee.png").read_bytes())
    return path


def inspect(*arguments):
    return CliRunner().invoke(cli.app, ["inspect", *map(str, arguments)])


def rows(text):
    return [[c.strip() for c in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")]


def expected(victim, photograph, cut, reduction):
    """Counts, bytes and GFLOP of the pipeline that is cut after ``cut`` blocks."""
    image = ImageSet.from_pixels(decode(photograph.read_bytes(), 64)[None])
    pipeline = SplitPipeline(victim, CPU, cut=cut, reduction=reduction, codec="float16")
    rng = Streams(0, ("evaluation", "encode"))
    pipeline.encode(image, rng)
    with FlopCounterMode(display=False) as counter:
        encoded = pipeline.encode(image, rng)
    sizes = encoded.decoded.sizes
    return (
        encoded.tokens_per_layer[0].tolist(),
        int(encoded.payload_bytes),
        counter.get_total_flops() / 1e9,
        int(sizes.max()),
    )


@pytest.mark.parametrize(("point", "reduction"), [("threshold_0.80", THRESHOLD), ("random_merge_0.90", RANDOM)])
def test_the_table_holds_what_a_pipeline_cut_there_does(victim, photograph, tmp_path, point, reduction):
    done = inspect(photograph, "--defense", point, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    found = rows(done.output)
    assert len(found) == 3
    for cut, row in enumerate(found, start=1):
        tokens, payload_bytes, gflops, largest = expected(victim, photograph, cut, reduction)
        assert row == [
            str(cut),
            str(tokens[-1]),
            f"{100 * tokens[-1] / 65:.1f} %",
            str(largest),
            f"{gflops:.4f}",
            str(payload_bytes),
        ]
    assert int(found[-1][1]) < 65, "something merged, or this test shows nothing"


def test_every_point_but_the_baseline_is_drawn(photograph, tmp_path):
    out = tmp_path / "out"
    done = inspect(photograph, "--out", out)
    assert done.exit_code == 0, done.output
    points = ["threshold_0.95", "threshold_0.90", "threshold_0.80", "random_merge_0.90"]
    assert sorted(p.name for p in out.iterdir()) == sorted(f"inspect_{point}.png" for point in points)
    for point in points:
        assert str(out / f"inspect_{point}.png") in done.output
        with Image.open(out / f"inspect_{point}.png") as image:
            image.load()
            assert image.width == 4 * 540, "the image and three blocks side by side"


def test_a_suite_option_can_be_set(photograph, tmp_path):
    done = inspect(photograph, "--defense", "threshold_0.80", "--set", "defense.cut=1", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert len(rows(done.output)) == 1


def test_an_upright_copy_gives_the_same_as_a_turned_one(photograph, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it clockwise
    with Image.open(photograph) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    suite = load_suite("quick")
    seen = [
        next(inspect_photograph(path, suite, "threshold_0.80", tmp_path, CPU))[0]
        for path in (photograph, tmp_path / "turned.png")
    ]
    assert torch.equal(seen[0].pixels, seen[1].pixels)
    assert torch.equal(seen[0].layers[-1].merge_map, seen[1].layers[-1].merge_map)


def test_no_split_is_loaded(monkeypatch, photograph, tmp_path):
    def refuse(*_):
        raise AssertionError("a split was loaded")

    monkeypatch.setattr(Photos, "split", refuse)
    monkeypatch.setattr(ImageFolder, "split", refuse)
    assert inspect(photograph, "--defense", "threshold_0.80", "--out", tmp_path).exit_code == 0


def test_a_codec_that_must_be_fitted_is(photograph, tmp_path):
    codec = "defense.codec={name: pca, rank: 16}"
    done = inspect(photograph, "--defense", "threshold_0.80", "--set", codec, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert len(rows(done.output)) == 3


def test_a_defense_need_not_offer_it():
    with pytest.raises(ConfigError, match="'closed' cannot be inspected"):
        inspectable(type("Closed", (), {"name": "closed"})())


def broken(kind, photograph, folder):
    """Returns a path that holds no usable image."""
    path = folder / f"{kind}.png"
    if kind == "text":
        path.write_text("not a picture")
    elif kind == "truncated":
        path.write_bytes(photograph.read_bytes()[:20_000])
    elif kind == "truncated_jpeg":
        stream = io.BytesIO()
        with Image.open(photograph) as image:
            image.save(stream, "JPEG")
        path.write_bytes(stream.getvalue()[:5_000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    return path


def one_line_error(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["leakgauge", "inspect", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert stopped.value.code == LeakgaugeError.exit_code
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such file"),
        ("folder", "is not a file"),
        ("text", "not an image"),
        ("empty", "not an image"),
        ("truncated", "cannot be decoded"),
        ("truncated_jpeg", "truncated"),
    ],
)
def test_files_that_are_no_images(monkeypatch, capsys, photograph, tmp_path, kind, words):
    line = one_line_error(monkeypatch, capsys, broken(kind, photograph, tmp_path), "--out", tmp_path / "out")
    assert words in line
    assert f"{kind}.png" in line
    assert not (tmp_path / "out").exists()


def test_an_unknown_defense_is_suggested(monkeypatch, capsys, photograph, tmp_path):
    line = one_line_error(monkeypatch, capsys, photograph, "--defense", "treshold_0.80", "--out", tmp_path / "out")
    assert "treshold_0.80" in line
    assert "did you mean 'threshold_0.80'" in line
    assert not (tmp_path / "out").exists()
