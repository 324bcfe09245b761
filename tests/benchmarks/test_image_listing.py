"""Listing: what is passed over is counted by cause, links are followed but not in circles, also in archives."""

import os
import stat
import zipfile
from pathlib import Path

import pytest
from picture_folders import CONTENT, labelled_content, write

from leakgauge.benchmarks.tasks.own_images.image_files import ImageFiles
from leakgauge.benchmarks.tasks.own_images.image_listing import list_folder, list_zip, shown
from leakgauge.harness.errors import DataError

DATA = CONTENT["brick"][0]


def add_link(archive: zipfile.ZipFile, name: str, target: str) -> None:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, target)


def test_everything_passed_over_is_counted(tmp_path):
    files = ("cat/1.png", "dog/2.PNG", "cat/note.txt", "cat/3.heic", "cat/4.heic", "LICENSE", ".x/5.png", "dog/._2.png")
    write(tmp_path, dict.fromkeys(files, DATA))
    (tmp_path / "cat" / "6.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "cat" / "7.png")
    (tmp_path / "cat" / "empty").mkdir()
    found = list_folder(tmp_path)
    assert sorted(found.names) == ["cat/1.png", "dog/2.PNG"]
    assert found.skipped == {
        "suffix .txt": 1,
        "suffix .heic": 2,
        "no suffix": 1,
        "hidden": 2,
        "links that lead nowhere": 1,
        "neither file nor folder": 1,
    }
    assert found.not_entered == {"empty folders": 1}
    assert len(found.names) + found.skipped.total() == len(files) + 2


def test_links_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "far", {"x/1.png": DATA, "2.png": DATA})
    write(tmp_path / "root", {"cat/1.png": DATA})
    root = tmp_path / "root"
    (root / "dog").symlink_to(tmp_path / "far")
    (root / "cat" / "one.png").symlink_to(tmp_path / "far" / "2.png")
    (root / "cat" / "up").symlink_to(root)
    (tmp_path / "far" / "x" / "round").symlink_to(tmp_path / "far")
    (root / "cat" / "self").symlink_to("self")
    found = ImageFiles.find(root)
    assert found.names == ("cat/1.png", "cat/one.png", "dog/2.png", "dog/x/1.png")
    assert found.classes == ("cat", "dog")
    assert found.listing.not_entered == {"links back to a folder above": 2, "links that lead nowhere": 1}


def test_crossing_links_end(tmp_path, monkeypatch):
    monkeypatch.setattr("leakgauge.benchmarks.tasks.own_images.image_listing.MAX_LISTED", 500)
    for a in "abcdefg":
        write(tmp_path, {f"{a}/1.png": DATA})
        for b in "abcdefg":
            (tmp_path / a / b).symlink_to(tmp_path / b)
    with pytest.raises(DataError, match="more than 500 files"):
        list_folder(tmp_path)


def test_a_folder_that_cannot_be_read_is_counted_and_a_class_in_it_missed(tmp_path, monkeypatch):
    write(tmp_path, {"cat/1.png": DATA, "dog/2.png": DATA, "cat/locked/3.png": DATA})
    scandir = os.scandir

    def guarded(path):
        if Path(path).name in locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    locked = {"locked"}
    assert ImageFiles.find(tmp_path).listing.not_entered == {"folders that cannot be read": 1}
    locked = {"dog"}
    with pytest.raises(DataError, match=r"'dog' gives no image \(folders that cannot be read\)"):
        ImageFiles.find(tmp_path)


def test_a_dangling_link_in_place_of_a_class_is_missed(tmp_path):
    write(tmp_path, {"cat/1.png": DATA, "cow/1.png": DATA})
    (tmp_path / "dog").symlink_to("gone")
    with pytest.raises(DataError, match="'dog' gives no image"):
        ImageFiles.find(tmp_path)


def test_an_archive_packed_elsewhere_reads_the_same(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in labelled_content().items():
            archive.writestr(name.replace("/", "\\"), data)
        archive.writestr("__MACOSX/brick/._00.png", b"")
        archive.writestr("../../out.png", DATA)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("brick\\00.png", DATA)
    found = ImageFiles.find(tmp_path / "a.zip")
    assert found.classes == ("astronaut", "brick", "coffee")
    assert len(found) == len(labelled_content())
    assert found.listing.skipped == {
        "hidden": 1,
        "name leads out of the archive": 1,
        "name occurs twice in the archive": 1,
    }
    with found.reader() as read:
        assert read("coffee/03.png") == CONTENT["coffee"][3]


def test_links_in_archives_are_followed(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat/1.png", DATA)
        archive.writestr("dog/2.png", CONTENT["coffee"][1])
        add_link(archive, "fox", "dog")
        add_link(archive, "cat/2.png", "../dog/2.png")
        add_link(archive, "cat/up", "..")
        add_link(archive, "cat/9.png", "../../secret.png")
    found = ImageFiles.find(tmp_path / "a.zip")
    assert found.names == ("cat/1.png", "cat/2.png", "dog/2.png", "fox/2.png")
    assert found.listing.not_entered == {"links back to a folder above": 1, "links that lead nowhere": 1}
    with found.reader() as read:
        assert read("fox/2.png") == read("cat/2.png") == CONTENT["coffee"][1]


def test_archives_that_python_cannot_read_are_refused_in_a_line(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", DATA)
    good = path.read_bytes()
    place = good.index(b"PK\1\2")
    for offset, value in ((6, 99), (10, 77), (42, 255)):  # version needed, method, place of the member
        data = bytearray(good)
        data[place + offset] = value
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"not a readable zip archive|'a.png' cannot be read: "):
            ImageFiles.find(path).load([0], 32, lambda data: data, skip_broken=False)
    assert list_zip(write(tmp_path, {"b.zip": good}) / "b.zip").names == {"a.png": "a.png"}


def test_names_from_outside_are_shown_harmless(tmp_path):
    for raw in (b"cat/\x1b[31mred.png", b"cat/\xff\xfe.png", b"dog/line\nbreak.png"):
        path = tmp_path / os.fsdecode(raw)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(DATA)
    found = ImageFiles.find(tmp_path)
    assert all(name.isprintable() and name.encode() for name in found.names)
    with found.reader() as read:
        assert all(read(name) == DATA for name in found.names)
    assert shown("a\x1b\n") == "a\\x1b\\n"
