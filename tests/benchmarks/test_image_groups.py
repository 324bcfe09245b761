"""Groups that the user names: dependent images share a split and a cluster, whatever else ties them."""

from collections import Counter

import pytest
import torch
from picture_folders import CONTENT, MODEL, write

from leakgauge.benchmarks.tasks.own_images.image_groups import check_groups, groups_of
from leakgauge.benchmarks.tasks.own_images.imagefolder import ImageFolder
from leakgauge.benchmarks.tasks.own_images.usable_images import usable
from leakgauge.harness.errors import ConfigError, DataError
from leakgauge.harness.values.images import SPLITS, ImageSet


def films() -> dict[str, bytes]:
    """48 frames of 16 films, three of each, which look nothing alike."""
    contents = [data for images in zip(*CONTENT.values(), strict=True) for data in images]
    return {f"film{k % 16:02}_frame{k // 16}.png": data for k, data in enumerate(contents)}


@pytest.mark.parametrize("kind", ["pattern", "csv"])
def test_groups_share_a_split_and_a_cluster(tmp_path, weights, kind):
    folder = write(tmp_path / "images", films())
    (tmp_path / "groups.csv").write_text("file,group\n" + "".join(f"{name},{name[:6]}\n" for name in films()))
    option = {"pattern": r"^(film\d+)_"} if kind == "pattern" else {"csv": str(tmp_path / "groups.csv")}
    task = ImageFolder(str(folder), MODEL, checkpoint=weights["headless"], image_px=64, groups=option)
    place = {i: (s, int(g)) for s in SPLITS for i, g in zip(task.split(s).ids, task.split(s).groups, strict=True)}
    by_film: dict[str, list] = {}
    for name, data in films().items():
        image_id = ImageSet.from_pixels(task.read_image(data)[None]).ids[0]
        if image_id in place:  # of a film that is cut, the rest is in no split
            by_film.setdefault(name[:6], []).append(place[image_id])
    assert [len(set(places)) for places in by_film.values()] == [1] * 16
    assert sum(map(len, by_film.values())) > 40
    assert option[kind] in task.reading().copies.grouped_by


def test_copies_tie_the_groups_that_hold_them():
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    decoded = ImageSet.from_pixels(pixels[[0, 1, 2, 3, 4, 1]])  # the last is a copy of the second
    images = usable(decoded, ["a", "a", "b", "", "", "b"]).images
    groups = dict(zip(images.ids, images.groups.tolist(), strict=True))
    sizes = sorted(Counter(groups.values()).values())
    assert sizes == [1, 1, 3]
    assert groups[decoded.ids[0]] == groups[decoded.ids[2]]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"patern": "x"}, "did you mean 'pattern'"),
        ({"pattern": "("}, "no regular expression"),
        ({}, "one key and a text"),
        ({"pattern": "a", "csv": "b"}, "one key and a text"),
        ({"csv": "nowhere.csv"}, "no such file"),
    ],
)
def test_bad_options_are_refused(option, message):
    with pytest.raises((ConfigError, DataError), match=message):
        check_groups(option)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,group\nb.png,1\n", "1 of 1 files that it names are not among the images, 'b.png'"),
        ("name,group\na.png,1\n", "no columns file and group"),
        ("file,group\na.png,1\na.png,2\n", "another group than before"),
        ("file,group\na.png,\n", "names no file, no group"),
        ("file,group\n", "names no image"),
        ("", "no columns"),
    ],
)
def test_bad_files_are_refused(tmp_path, text, message):
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        groups_of(["a.png"], {"csv": str(tmp_path / "g.csv")})
    with pytest.raises(DataError, match=r"found in no file name, 'a.png'"):
        groups_of(["a.png"], {"pattern": "film"})
