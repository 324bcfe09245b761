"""Reading images: layouts of folders and archives, decoding, and limits."""

import zipfile

import pytest
import torch
from picture_folders import CONTENT, PER_SCENE, labelled_content, write

from leakgauge.benchmarks.tasks.own_images.image_files import ImageFiles
from leakgauge.harness.errors import DataError
from leakgauge.harness.values.decoding import decode


def read(data: bytes) -> torch.Tensor:
    return decode(data, 32)


def test_folders_are_classes(labelled):
    found = ImageFiles.find(labelled)
    assert found.classes == ("astronaut", "brick", "coffee")
    assert found.names[0] == "astronaut/00.png"
    assert found.labels == tuple(c for c in range(3) for _ in range(PER_SCENE))


def test_a_flat_folder_has_no_labels(flat):
    found = ImageFiles.find(flat)
    assert found.classes is None
    assert len(found) == 3 * PER_SCENE


def test_a_zip_reads_like_a_folder(labelled, tmp_path):
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in reversed(labelled_content("top/").items()):
            target.writestr(name, data)
        target.writestr("__MACOSX/top/astronaut/._00.png", b"resource fork")
        target.writestr("../../escape.txt", b"never written")
    folder, packed = ImageFiles.find(labelled), ImageFiles.find(archive)
    assert packed.classes == folder.classes
    rows = range(len(folder))
    assert torch.equal(
        folder.load(rows, 32, read, skip_broken=False)[0], packed.load(rows, 32, read, skip_broken=False)[0]
    )
    assert [p.name for p in tmp_path.iterdir()] == ["images.zip"]


def test_mixed_depths_are_refused(tmp_path):
    write(tmp_path, {"a.png": CONTENT["brick"][0], "cat/b.png": CONTENT["brick"][1]})
    with pytest.raises(DataError, match=r"others beside them, 'cat/b.png' and 'a.png' -- put all into one folder"):
        ImageFiles.find(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match="no images found"):
        ImageFiles.find(tmp_path)


def test_a_false_zip_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="not a readable zip"):
        ImageFiles.find(tmp_path / "a.zip")


def test_size_limits(monkeypatch, labelled):
    monkeypatch.setattr("leakgauge.harness.values.decoding.MAX_SOURCE_PIXELS", 5000)
    with pytest.raises(DataError, match=r"'astronaut/00.png' cannot be decoded: 72 x 72 px is above the limit"):
        ImageFiles.find(labelled).load([0], 32, read, skip_broken=False)
    monkeypatch.setattr("leakgauge.benchmarks.tasks.own_images.image_files.MAX_FILE_BYTES", 100)
    with pytest.raises(DataError, match="the file is larger than"):
        ImageFiles.find(labelled).load([0], 32, read, skip_broken=False)
    monkeypatch.setattr("leakgauge.benchmarks.tasks.own_images.image_files.MAX_DECODED_BYTES", 1000)
    with pytest.raises(DataError, match="2 images of 32 px need"):
        ImageFiles.find(labelled).load([0, 1], 32, read, skip_broken=False)


def test_an_archive_that_unpacks_to_too_much_is_refused(monkeypatch, tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10**6))
    monkeypatch.setattr("leakgauge.benchmarks.tasks.own_images.image_listing.MAX_TOTAL_BYTES", 10**5)
    with pytest.raises(DataError, match="the images unpack to"):
        ImageFiles.find(tmp_path / "bomb.zip")


def test_a_damaged_archive_member_is_a_broken_image(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", CONTENT["brick"][0])
        archive.writestr("b.png", CONTENT["brick"][1])
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)
    found = ImageFiles.find(path)
    with pytest.raises(DataError, match=r"'a.png' cannot be read: .*CRC"):
        found.load([0, 1], 32, read, skip_broken=False)
    assert found.load([0, 1], 32, read, skip_broken=True)[1] == [1]
