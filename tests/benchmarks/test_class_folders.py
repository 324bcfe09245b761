"""Classes from folders: the first below the root, and one clear line wherever that can be read another way."""

import io
import zipfile

import pytest
from PIL import Image

from leakgauge.benchmarks.tasks.own_images.image_files import ImageFiles
from leakgauge.harness.errors import DataError


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(params=["folder", "zip"])
def find(request, tmp_path):
    """Writes empty folders (a name that ends in /) and images, and lists them."""

    def written(names: str, rule: str = "auto", wrapped: str = "") -> ImageFiles:
        path = tmp_path / "a.zip" if request.param == "zip" else tmp_path / "a"
        if request.param == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for name in names.split():
                    archive.writestr(wrapped + name, b"" if name.endswith("/") else picture())
        for name in names.split() if request.param == "folder" else []:
            target = path / name
            (target if name.endswith("/") else target.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                target.write_bytes(picture())
        return ImageFiles.find(path, rule)

    return written


TIMES = "pets/morning/1.png pets/evening/2.png tools/morning/3.png tools/evening/4.png"


def test_the_first_folder_is_the_class(find):
    found = find("pets/a/1.png pets/2.png tools/b/c/3.png", wrapped="top/")
    assert found.classes == ("pets", "tools")
    assert found.labels == (0, 0, 1)


@pytest.mark.parametrize(
    ("rule", "classes", "labels"),
    [
        ("first", ("pets", "tools"), (0, 0, 1, 1)),
        ("innermost", ("evening", "morning"), (0, 1, 0, 1)),
        ("flat", None, ()),
    ],
)
def test_a_name_under_several_folders_needs_a_word(find, rule, classes, labels):
    with pytest.raises(DataError, match=r"'pets/(morning|evening)', 'tools/\w+': which .* -- set `classes: first`"):
        find(TIMES)
    found = find(TIMES, rule)
    assert (found.classes, found.labels) == (classes, labels)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("train/cat/1.png train/dog/2.png test/cat/3.png test/dog/4.png", "'test', 'train' are named like splits"),
        ("train/1.png Val/2.png", "named like splits"),
        ("images/1.png masks/1.png", "named like parts of a data set"),
        ("Cat/1.png cat/2.png", "differ in case or spelling only"),
        ("1.png cat/2.png", "others beside them"),
        ("cat/x/1.png dog/x/2.png dog/y/3.png", "folders of one name"),
    ],
)
def test_layouts_of_two_meanings_are_refused(find, names, message):
    with pytest.raises(DataError, match=message):
        find(names)


def test_split_folders_are_merged_on_demand(find):
    assert find("train/cat/1.png test/cat/2.png test/dog/3.png", "innermost").classes == ("cat", "dog")


def test_one_inner_folder_of_every_class_tells_nothing_apart(find):
    assert find("n01/images/1.png n02/images/2.png").classes == ("n01", "n02")


@pytest.mark.parametrize("names", ["1.png 2.png", "only/1.png only/2.png", "a/b/1.png", "1.png notes.txt empty/"])
def test_one_folder_has_no_labels(find, names):
    found = find(names)
    assert found.classes is None
    assert found.labels_from.startswith("no labels")


@pytest.mark.parametrize("rule", ["first", "innermost"])
def test_labels_that_are_asked_for_must_be_there(find, rule):
    with pytest.raises(DataError, match=rf"`classes: {rule}` finds no two classes"):
        find("only/1.png only/2.png", rule)


@pytest.mark.parametrize(
    ("names", "lost"),
    [
        ("cat/1.png dog/2.heic", r"'dog' gives no image \(suffix .heic\)"),
        ("cat/1.png dog/2.png cow/3.txt", r"'cow' gives no image \(suffix .txt\)"),
        ("cat/1.png dog/2.png cow/", r"'cow' gives no image \(empty folders\)"),
        ("cat/1.png .dog/2.png", r"'.dog' gives no image \(hidden\)"),
        ("a/cat/1.png a/dog/2.png b/cow.heic", r"'b' gives no image"),
    ],
)
def test_skipping_never_takes_a_class_away(find, names, lost):
    with pytest.raises(DataError, match=rf"{lost}.* a class would be lost -- convert"):
        find(names)
    assert find(names, "flat").classes is None


def test_hidden_folders_beside_classes_are_only_counted(find):
    found = find("cat/1.png dog/2.png .thumbs/1.png @eaDir/2.png cat/._1.png")
    assert found.classes == ("cat", "dog")
    assert found.listing.skipped == {"hidden": 3}


def test_a_folder_with_one_folder_is_not_guessed_but_an_archive_is_unwrapped(tmp_path):
    for name in ("top/cat/1.png", "top/dog/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture())
    with pytest.raises(DataError, match=r"its one folder 'top' holds folders, 'cat', 'dog'.* -- give `path: .*top`"):
        ImageFiles.find(tmp_path)
    assert ImageFiles.find(tmp_path / "top").classes == ("cat", "dog")
