"""The task over a user's own images: splits, qualities, and one clear line for every mistake."""

import io
from pathlib import Path

import pytest
import torch
from picture_folders import CONTENT, MODEL, PER_SCENE, labelled_content, png, write
from PIL import Image, ImageColor

from leakgauge.benchmarks.tasks.own_images.imagefolder import ImageFolder
from leakgauge.benchmarks.victims.loading.linear_probe import pooled_features
from leakgauge.harness.errors import ConfigError, DataError, LeakgaugeError
from leakgauge.harness.measurement.near_duplicates import check_disjoint
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.images import SPLITS


def folder_task(path: Path, checkpoint: str, **options) -> ImageFolder:
    return ImageFolder(str(path), MODEL, checkpoint=checkpoint, image_px=64, **options)


def all_ids(task: ImageFolder) -> dict[str, set[str]]:
    return {name: set(task.split(name).ids) for name in SPLITS}


def test_default_splits_take_every_image_once(flat, weights):
    task = folder_task(flat, weights["headless"])
    assert {name: len(task.split(name)) for name in SPLITS} == {
        "attacker": 31,
        "calibration": 4,
        "search": 4,
        "evaluation": 9,
    }
    check_disjoint({name: task.split(name) for name in SPLITS})
    assert task.split("search") is task.split("search")
    assert task.split("attacker").pixels.shape == (31, 3, 64, 64)


def test_splits_are_stratified(labelled, weights):
    task = folder_task(labelled, weights["headless"], quality="agreement", per_split={"evaluation": 12, "search": 6})
    assert torch.bincount(task.split("evaluation").labels).tolist() == [4, 4, 4]
    assert torch.bincount(task.split("search").labels).tolist() == [2, 2, 2]


def test_names_and_order_of_files_do_not_matter(flat, weights, tmp_path):
    contents = [data for images in CONTENT.values() for data in images]
    other = write(tmp_path, {f"{len(contents) - k:03}.png": data for k, data in enumerate(contents)})
    first, second = folder_task(flat, weights["headless"]), folder_task(other, weights["headless"])
    for name in SPLITS:
        assert first.split(name).digest() == second.split(name).digest()
        assert torch.equal(first.split(name).groups, second.split(name).groups)


def test_copies_never_part(tmp_path, weights):
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(CONTENT["brick"][5])).save(jpeg, "JPEG", quality=80)
    extra = {
        "brick/copy.png": CONTENT["brick"][0],
        "coffee/wrong.png": CONTENT["brick"][1],
        "brick/again.jpg": jpeg.getvalue(),
    }
    task = folder_task(write(tmp_path, labelled_content() | extra), weights["headless"], quality="agreement")
    ids = all_ids(task)
    assert sum(map(len, ids.values())) == len(set().union(*ids.values())) == 3 * PER_SCENE + 3 - 1 - 2
    assert +task.left_out == {"exact copies": 1, "copies with contradicting labels": 2}
    assert task.reading().copies.found["near copies"] == 2
    check_disjoint({name: task.split(name) for name in SPLITS})
    groups = torch.cat([task.split(name).groups for name in SPLITS])
    assert sorted(torch.unique(groups, return_counts=True)[1].tolist())[-2:] == [1, 2]


def test_hidden_colours_do_not_tell_files_apart(tmp_path, weights):
    def transparent(hidden: str) -> bytes:
        image = Image.open(io.BytesIO(CONTENT["brick"][0])).convert("RGBA")
        image.paste(Image.new("RGBA", (72, 30), hidden), (0, 0))
        image.putalpha(Image.new("L", (72, 72), 255))
        image.paste(Image.new("RGBA", (72, 30), (*ImageColor.getrgb(hidden), 0)), (0, 0))
        return png(image)

    extra = {f"{name}.png": transparent(name) for name in ("red", "green", "black")}
    extra |= {f"{k:02}.png": data for k, data in enumerate(CONTENT["coffee"])}
    task = folder_task(write(tmp_path, extra), weights["headless"])
    task.split("attacker")
    assert task.left_out["exact copies"] == 2
    other = folder_task(tmp_path, weights["headless"], background="black")
    assert task.read_image(extra["red.png"])[:, 0, 32].tolist() == [255] * 3
    assert other.read_image(extra["red.png"])[:, 0, 32].tolist() == [0] * 3


def test_too_few_images_are_refused(flat, weights):
    task = folder_task(flat, weights["headless"], per_split={"evaluation": 40, "search": 20})
    with pytest.raises(DataError, match=r"48 usable images are not enough .*evaluation 40.* -- add images"):
        task.split("attacker")


def test_large_folders_are_decoded_in_part(flat, weights, monkeypatch):
    monkeypatch.setattr("leakgauge.benchmarks.tasks.own_images.imagefolder.SPARE_FILES", 2)
    counts = {"attacker": 10, "calibration": 2, "search": 2, "evaluation": 6}
    task = folder_task(flat, weights["headless"], per_split=counts)
    assert {name: len(task.split(name)) for name in SPLITS} == counts
    # Of 24 decoded: 20, 10 % and 2.
    assert +task.left_out == {"usable, but in no split": 4, "not decoded, as `per_split` needs fewer": 24}


def test_a_broken_image_is_named(tmp_path, weights):
    write(tmp_path, labelled_content() | {"brick/broken.png": CONTENT["brick"][0][:2000]})
    task = folder_task(tmp_path, weights["headless"], quality="agreement")
    with pytest.raises(DataError, match=r"image 'brick/broken.png' cannot be decoded: .* -- .*`skip_broken: true`"):
        task.split("attacker")


def test_broken_images_are_counted(tmp_path, weights):
    write(tmp_path, labelled_content() | {"brick/broken.png": b"", "coffee/text.jpg": b"hello"})
    task = folder_task(tmp_path, weights["headless"], quality="agreement", skip_broken=True)
    assert sum(len(task.split(name)) for name in SPLITS) == 3 * PER_SCENE
    assert task.left_out["cannot be decoded"] == 2


def test_every_listed_file_is_used_or_skipped_for_a_cause(tmp_path, weights):
    extra = {
        "brick/broken.png": b"",
        "coffee/text.jpg": b"hello",
        "coffee/copy.png": CONTENT["coffee"][0],
        "brick/wrong.png": CONTENT["astronaut"][0],
        "brick/notes.txt": b"notes",
        ".trash/brick.png": CONTENT["brick"][0],
    }
    write(tmp_path, labelled_content() | extra)
    task = folder_task(tmp_path, weights["headless"], quality="agreement", skip_broken=True)
    reading = task.reading()
    assert reading.listed == 3 * PER_SCENE + len(extra)
    assert reading.used + sum(reading.skipped.values()) == reading.listed
    assert {cause: n for cause, n in reading.skipped.items() if n} == {
        "cannot be decoded": 2,
        "copies with contradicting labels": 2,
        "exact copies": 1,
        "suffix .txt": 1,
        "hidden": 1,
    }
    assert reading.classes["brick"]["evaluation"] > 0
    assert reading.labels_from == "the first folder below the root"


@pytest.mark.parametrize("why", ["broken", "contradicting"])
def test_leaving_out_never_takes_a_class_away(tmp_path, weights, why):
    more = {f"cow/{k}.png": b"broken" if why == "broken" else CONTENT["brick"][k] for k in range(3)}
    write(tmp_path, labelled_content() | more)
    task = folder_task(tmp_path, weights["headless"], quality="agreement", skip_broken=True)
    with pytest.raises(DataError, match=r"no image of class 'cow' is usable \(\d cannot|no .* 'cow' .*contradicting"):
        task.split("attacker")


def test_the_undefended_model_agrees_with_itself(flat, weights):
    for kind, name in (("head", "top-1 agreement with the undefended model"), ("headless", "centred feature cosine")):
        task = folder_task(flat, weights[kind])
        images = task.split("evaluation")
        target = task.target(images)
        assert not target.requires_grad
        with torch.no_grad():
            alone = torch.cat([task.victim().predict(one.images()) for one in images.batches(1)])
        assert task.quality(alone, target).tolist() == [1.0] * len(images)
        assert task.quality_name.startswith(name)
        assert task.quality(-alone, target).max() < 0.5
        assert torch.equal(task.target(images.select([2, 0])), target[[2, 0]])


def test_a_probe_learns_the_classes(labelled, weights):
    task = folder_task(labelled, weights["head"])
    assert task.quality_name == "top-1 accuracy (linear probe)"
    images = task.split("attacker")
    with torch.no_grad():
        output = task.victim().predict(images.images())
    assert output.shape == (len(images), 3)
    assert task.quality(output, task.target(images)).mean() > 0.6
    assert "linear probe" in task.victim().name
    assert task.victim() is task.victim()
    assert sum(len(task.split(name)) for name in SPLITS) == 36


def test_the_probe_is_repeatable_and_part_of_the_hash(labelled, weights):
    first, second = (folder_task(labelled, weights["head"]).victim() for _ in range(2))
    other = folder_task(labelled, weights["head"], per_split={"victim": 9}).victim()
    assert first.weights_hash == second.weights_hash
    assert torch.equal(first.model.head.weight, second.model.head.weight)
    unprobed = folder_task(labelled, weights["head"], quality="agreement").victim()
    assert len({first.weights_hash, other.weights_hash, unprobed.weights_hash}) == 3


def test_the_probe_sees_what_the_head_sees(labelled, weights):
    task = folder_task(labelled, weights["headless"])
    victim, images = task.victim(), task.split("search")
    with torch.no_grad():
        assert torch.allclose(
            victim.model.head(pooled_features(victim, images)), victim.predict(images.images()), atol=1e-4
        )


def test_the_own_head_is_used_where_labels_match(tmp_path, weights):
    content = {
        f"{number}/{k}.png": data for number, images in enumerate(CONTENT.values()) for k, data in enumerate(images)
    }
    write(tmp_path, content)
    task = folder_task(tmp_path, weights["three"])
    assert task.quality_name == "top-1 accuracy (own head)"
    images = task.split("search")
    assert task.quality(torch.eye(3)[images.labels], task.target(images)).tolist() == [1.0] * len(images)
    assert task.quality(1 - torch.eye(3)[images.labels], task.target(images)).tolist() == [0.0] * len(images)
    # Three folders named by number need not be the first three of a thousand classes.
    assert folder_task(tmp_path, weights["head"]).quality_name == "top-1 accuracy (linear probe)"
    assert folder_task(tmp_path, weights["head"], quality="head").quality_name == "top-1 accuracy (own head)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "vit_tinny_patch16_224"}, "did you mean 'vit_tiny_patch16_224'"),
        ({"path": "nowhere/at/all"}, "nowhere/at/all: no such file or folder -- check the path"),
        ({"checkpoint": "lost.safetensors"}, "lost.safetensors: no such file"),
        ({"checkpoint": None}, "no weights -- set either"),
        ({"pretrained": True}, "both `checkpoint` and `pretrained`"),
        ({"quality": "haed"}, "quality = 'haed' is not one of .* did you mean 'head'"),
        ({"image_px": 0}, "image_px = 0 is not a whole number of at least 1"),
        ({"image_px": 70}, "image_px: 70 is not a multiple of the patch size 16 -- try 64"),
        ({"per_split": {"evalation": 3}}, "per_split: unknown split 'evalation' -- did you mean 'evaluation'"),
        ({"per_split": {"search": 0}}, "per_split = .*search"),
        ({"per_split": {"victim": 3}}, "only a probe is fitted .* the quality is 'agreement'"),
        ({"quality": "probe"}, "'probe' needs labels"),
        ({"quality": "head"}, "'head' needs labels"),
    ],
)
def test_mistakes_are_one_clear_line(flat, weights, options, message):
    given = {"path": str(flat), "model": MODEL, "checkpoint": weights["headless"], "image_px": 64} | options
    with pytest.raises(LeakgaugeError, match=message) as caught:
        create("tasks", "imagefolder", given).victim()
    assert "\n" not in str(caught.value)


def test_a_head_that_does_not_match_is_refused(labelled, weights):
    with pytest.raises(ConfigError, match="do not match the 1000 classes"):
        folder_task(labelled, weights["head"], quality="head").split("search")


def test_a_class_without_probe_images_is_refused(labelled, weights):
    with pytest.raises(DataError, match=r"has no image in the probe's split of 2 -- .*per_split.victim"):
        folder_task(labelled, weights["head"], per_split={"victim": 2}).victim()


def test_a_second_folder_is_the_attackers_shifted_domain(flat, labelled, weights, tmp_path):
    noise = torch.randint(256, (3, 70, 70, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    files = {}
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
        files[f"{i}.png"] = buffer.getvalue()
    files["again.png"] = files["0.png"]
    task = folder_task(flat, weights["headless"], shifted=str(write(tmp_path, files)))
    assert task.shifted().pixels.shape == (3, 3, 64, 64), "each content once"
    assert task.shifted().labels is None
    assert folder_task(flat, weights["headless"]).shifted() is None
    check_disjoint({"shifted": task.shifted(), "evaluation": task.split("evaluation")})
    same = folder_task(flat, weights["headless"], shifted=str(labelled)).shifted()
    with pytest.raises(DataError, match="'shifted' and 'evaluation'"):
        check_disjoint({"shifted": same, "evaluation": task.split("evaluation")})
