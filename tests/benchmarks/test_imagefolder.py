"""The task over a user's own images: layouts, splits, qualities, and one clear line for every mistake."""

import io
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.tasks.head_classes import match_head
from benchmarks.tasks.image_files import ImageFiles, decode
from benchmarks.tasks.image_splits import assign, split_counts, stratified_order
from benchmarks.tasks.imagefolder import ImageFolder
from benchmarks.victims.linear_probe import fit_linear, pooled_features
from benchmarks.victims.timm_model import load_timm_model
from harness.contracts import SPLITS
from harness.errors import ConfigError, DataError, LeakgaugeError
from harness.splits import check_disjoint

MODEL = "vit_tiny_patch16_224"
SCENES = ("astronaut.png", "brick.png", "coffee.png")
PER_SCENE = 16


def crops(scene: str, count: int = PER_SCENE) -> list[Image.Image]:
    """Windows of one photograph that do not overlap."""
    with (files("skimage") / "data" / scene).open("rb") as stream:
        image = Image.open(stream).convert("RGB")
    side, columns = 72, image.width // 80
    return [
        image.crop((left, top, left + side, top + side))
        for left, top in ((80 * (k % columns), 80 * (k // columns)) for k in range(count))
    ]


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


CONTENT = {scene.partition(".")[0]: [png(image) for image in crops(scene)] for scene in SCENES}


def write(root: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def labelled_content(prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}{label}/{k:02}.png": data for label, images in CONTENT.items() for k, data in enumerate(images)}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("labelled"), labelled_content())


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> Path:
    content = {name.replace("/", "_"): data for name, data in labelled_content().items()}
    return write(tmp_path_factory.mktemp("flat"), content | {"labels.csv": b"a,b", ".hidden.png": b"no image"})


def save_weights(path: Path, seed: int = 0, **options) -> Path:
    torch.manual_seed(seed)
    model = timm.create_model(MODEL, pretrained=False, **{"img_size": 64, "depth": 2} | options)
    save_file(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, str]:
    """Random weights of the full depth: with a head of 1000 classes, with one of three, and without."""
    root = tmp_path_factory.mktemp("weights")
    made = {"head": 1000, "three": 3, "headless": 0}
    return {n: str(save_weights(root / f"{n}.safetensors", depth=12, num_classes=c)) for n, c in made.items()}


def folder_task(path: Path, checkpoint: str, **options) -> ImageFolder:
    return ImageFolder(str(path), MODEL, checkpoint=checkpoint, image_px=64, **options)


def all_ids(task: ImageFolder) -> dict[str, set[str]]:
    return {name: set(task.split(name).ids) for name in SPLITS}


# Layout and decoding


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
    assert torch.equal(folder.load(rows, 32, skip_broken=False)[0], packed.load(rows, 32, skip_broken=False)[0])
    assert [p.name for p in tmp_path.iterdir()] == ["images.zip"]


def test_mixed_depths_are_refused(tmp_path):
    write(tmp_path, {"a.png": CONTENT["brick"][0], "cat/b.png": CONTENT["brick"][1]})
    with pytest.raises(DataError, match=r"different depths, 'a.png' and 'cat/b.png' -- put all into one folder"):
        ImageFiles.find(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match="no images found"):
        ImageFiles.find(tmp_path)


def test_a_false_zip_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="not a readable zip"):
        ImageFiles.find(tmp_path / "a.zip")


def test_images_are_upright_square_rgb():
    image = Image.new("RGB", (60, 90), "red")
    image.paste((0, 0, 255), (0, 0, 60, 45))  # blue above red
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # a viewer turns it clockwise
    image.save(stream, "PNG", exif=exif)
    pixels = decode(stream.getvalue(), 30)
    assert pixels.shape == (3, 30, 30)
    assert pixels.dtype == torch.uint8
    assert pixels[:, 15, 3].tolist() == [255, 0, 0]
    assert pixels[:, 15, 26].tolist() == [0, 0, 255]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_other_modes_become_rgb(mode):
    stream = io.BytesIO()
    image = crops("coffee.png", 1)[0].convert(mode)
    image.save(stream, "TIFF" if mode == "CMYK" else "PNG")
    assert decode(stream.getvalue(), 16).float().std() > 1


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16))
    pixels = decode(png(ramp), 64)
    assert pixels.float().mean() == pytest.approx(127, abs=1)


def test_size_limits(monkeypatch, labelled):
    monkeypatch.setattr("benchmarks.tasks.image_files.MAX_SOURCE_PIXELS", 5000)
    with pytest.raises(DataError, match=r"'astronaut/00.png' cannot be decoded: 72 x 72 px is above the limit"):
        ImageFiles.find(labelled).load([0], 32, skip_broken=False)
    monkeypatch.setattr("benchmarks.tasks.image_files.MAX_FILE_BYTES", 100)
    with pytest.raises(DataError, match="the file is larger than"):
        ImageFiles.find(labelled).load([0], 32, skip_broken=False)
    monkeypatch.setattr("benchmarks.tasks.image_files.MAX_DECODED_BYTES", 1000)
    with pytest.raises(DataError, match="2 images of 32 px need"):
        ImageFiles.find(labelled).load([0, 1], 32, skip_broken=False)


def test_an_archive_that_unpacks_to_too_much_is_refused(monkeypatch, tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10**6))
    monkeypatch.setattr("benchmarks.tasks.image_files.MAX_TOTAL_BYTES", 10**5)
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
    with pytest.raises(DataError, match=r"'a.png' cannot be decoded: .*CRC"):
        found.load([0, 1], 32, skip_broken=False)
    assert found.load([0, 1], 32, skip_broken=True)[1] == [1]


# Splits


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
    assert task.left_out == {"broken": 0, "copies": 1, "ambiguous": 2, "surplus": 0}
    check_disjoint({name: task.split(name) for name in SPLITS})
    groups = torch.cat([task.split(name).groups for name in SPLITS])
    assert sorted(torch.unique(groups, return_counts=True)[1].tolist())[-2:] == [1, 2]


def test_too_few_images_are_refused(flat, weights):
    task = folder_task(flat, weights["headless"], per_split={"evaluation": 40, "search": 20})
    with pytest.raises(DataError, match=r"48 usable images are not enough .*evaluation 40.* -- add images"):
        task.split("attacker")


def test_large_folders_are_decoded_in_part(flat, weights, monkeypatch):
    monkeypatch.setattr("benchmarks.tasks.imagefolder.SPARE_FILES", 2)
    counts = {"attacker": 10, "calibration": 2, "search": 2, "evaluation": 6}
    task = folder_task(flat, weights["headless"], per_split=counts)
    assert {name: len(task.split(name)) for name in SPLITS} == counts
    assert sum(task.left_out.values()) == 4  # of 24 decoded: 20, 10 % and 2


def test_clusters_stay_whole_and_the_last_resort_is_to_cut_one():
    clusters = [[0, 1, 2], [3], [4], [5, 6]]
    assert assign(clusters, {"a": 2, "b": 5}) == {"a": [3, 4], "b": [0, 1, 2, 5, 6]}
    assert assign([[0, 1, 2]], {"a": 1}) == {"a": [0]}
    with pytest.raises(DataError, match="0 images are left for 'b'"):
        assign([[0, 1, 2]], {"a": 1, "b": 1})


def test_every_stretch_of_the_order_is_balanced():
    labels = [0] * 60 + [1] * 30
    order = [i for cluster in stratified_order([f"id{k}" for k in range(90)], labels) for i in cluster]
    assert sorted(order) == list(range(90))
    for start in range(0, 90, 9):
        assert sum(labels[i] for i in order[start : start + 9]) == pytest.approx(3, abs=1)


def test_shares_of_the_probe():
    assert split_counts(100, {}, probe=True) == {
        "victim": 25,
        "evaluation": 15,
        "search": 7,
        "calibration": 7,
        "attacker": 46,
    }


# Broken images


def test_a_broken_image_is_named(tmp_path, weights):
    write(tmp_path, labelled_content() | {"brick/broken.png": CONTENT["brick"][0][:2000]})
    task = folder_task(tmp_path, weights["headless"], quality="agreement")
    with pytest.raises(DataError, match=r"image 'brick/broken.png' cannot be decoded: .* -- .*`skip_broken: true`"):
        task.split("attacker")


def test_broken_images_are_counted(tmp_path, weights):
    write(tmp_path, labelled_content() | {"brick/broken.png": b"", "coffee/text.jpg": b"hello"})
    task = folder_task(tmp_path, weights["headless"], quality="agreement", skip_broken=True)
    assert sum(len(task.split(name)) for name in SPLITS) == 3 * PER_SCENE
    assert task.left_out["broken"] == 2


# Qualities


def test_the_undefended_model_agrees_with_itself(flat, weights):
    for kind, name in (("head", "top-1 agreement with the undefended model"), ("headless", "feature cosine")):
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


def test_folding_the_standardisation_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(200, 8, generator=generator)
    features, labels = raw * torch.logspace(-2, 2, 8) + 5, raw[:, ::3].argmax(1)
    layer = fit_linear(features, labels, 3)
    again = fit_linear(features * 3 - 1, labels, 3)
    assert torch.allclose(layer(features).softmax(1), again(features * 3 - 1).softmax(1), atol=1e-3)
    assert (layer(features).argmax(1) == labels).float().mean() > 0.9


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


def test_imagenet_names_are_known():
    assert match_head(["n01440764", "n01443537"], 1000) == [0, 1]
    assert match_head(["Goldfish", "tench", "great_white_shark"], 1000) == [1, 0, 2]
    assert match_head(["goldfish", "no such thing"], 1000) is None
    assert match_head(["crane", "goldfish"], 1000) is None  # the bird or the machine
    assert match_head(["goldfish", "n01443537"], 1000) is None
    assert match_head(["goldfish", "tench"], 10) is None
    assert match_head(["0", "2"], 3) == [0, 2]
    assert match_head(["0", "3"], 3) is None
    assert match_head(["0"], 0) is None


# Weights


def test_normalisation_and_size_come_from_timm(weights):
    loaded = load_timm_model(MODEL, Path(weights["head"]), image_px=64)
    assert loaded.mean == (0.5, 0.5, 0.5)
    assert (loaded.px, loaded.classes) == (64, 1000)
    assert not loaded.model.training


def test_position_embeddings_are_resized(weights):
    path = Path(weights["headless"])
    same = load_timm_model(MODEL, path, image_px=64)
    smooth = load_timm_model(MODEL, path, image_px=32)
    sharp = load_timm_model(MODEL, path, image_px=32, pos_embed_antialias=False)
    assert smooth.model.pos_embed.shape == (1, 5, 192)
    assert not torch.allclose(smooth.model.pos_embed, sharp.model.pos_embed)
    assert len({same.weights_hash, smooth.weights_hash, sharp.weights_hash}) == 3


def test_torch_files_are_read_as_tensors_only(weights, tmp_path):
    state = timm.create_model(MODEL, img_size=64, num_classes=5).state_dict()
    torch.save({"state_dict": {f"module.{k}": v.half() for k, v in state.items()}, "epoch": 3}, tmp_path / "a.pth")
    assert load_timm_model(MODEL, tmp_path / "a.pth", image_px=64).classes == 5
    torch.save({"head.weight": Path("danger")}, tmp_path / "b.pth")
    with pytest.raises(DataError, match="the checkpoint cannot be read"):
        load_timm_model(MODEL, tmp_path / "b.pth", image_px=64)


def test_unfit_checkpoints_are_refused(tmp_path, weights):
    (tmp_path / "text.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(DataError, match=r"text.safetensors: the checkpoint cannot be read"):
        load_timm_model(MODEL, tmp_path / "text.safetensors")
    with pytest.raises(DataError, match=r"do not fit 'vit_small_patch16_224': 'cls_token' is \(1, 1, 192\)"):
        load_timm_model("vit_small_patch16_224", Path(weights["head"]), image_px=64)
    shallow = save_weights(tmp_path / "shallow.safetensors", depth=2)
    with pytest.raises(DataError, match=r"do not fit .*: 'blocks.2.norm1.weight' is missing"):
        load_timm_model(MODEL, shallow, image_px=64)
    state = timm.create_model(MODEL, img_size=64).state_dict()
    save_file(state | {"extra": torch.ones(1)}, tmp_path / "extra.safetensors")
    with pytest.raises(DataError, match="'extra' is unknown"):
        load_timm_model(MODEL, tmp_path / "extra.safetensors", image_px=64)
    state["norm.bias"][0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(DataError, match="NaN"):
        load_timm_model(MODEL, tmp_path / "nan.safetensors", image_px=64)


def test_a_failed_download_names_the_way_out(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr("benchmarks.victims.timm_model.timm.create_model", refuse)
    with pytest.raises(DataError, match=r"cannot be downloaded: no route to host -- without network, .*`checkpoint`"):
        load_timm_model(MODEL, None)


def test_downloaded_weights_are_hashed_and_resized(monkeypatch, weights):
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        torch.manual_seed(0)
        return create(name, pretrained=False, **options)

    monkeypatch.setattr("benchmarks.victims.timm_model.timm.create_model", offline)
    first, second = (load_timm_model(MODEL, None, image_px=64) for _ in range(2))
    assert first.weights_hash == second.weights_hash
    assert (first.classes, first.px) == (1000, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "vit_tinny_patch16_224"}, "did you mean 'vit_tiny_patch16_224'"),
        ({"path": "nowhere/at/all"}, "nowhere/at/all: no such file or folder -- check the path"),
        ({"checkpoint": "lost.safetensors"}, "lost.safetensors: no such file"),
        ({"checkpoint": None}, "no weights -- set either"),
        ({"pretrained": True}, "both `checkpoint` and `pretrained`"),
        ({"quality": "haed"}, "quality: unknown 'haed' -- did you mean 'head'"),
        ({"image_px": 0}, "image_px: 0 is not a number of pixels"),
        ({"image_px": 70}, "image_px: 70 is not a multiple of the patch size 16 -- try 64"),
        ({"per_split": {"evalation": 3}}, "per_split: unknown split 'evalation' -- did you mean 'evaluation'"),
        ({"per_split": {"search": 0}}, "per_split.search: 0 images"),
        ({"per_split": {"victim": 3}}, "only a probe is fitted .* the quality is 'agreement'"),
        ({"quality": "probe"}, "'probe' needs labels"),
        ({"quality": "head"}, "'head' needs labels"),
    ],
)
def test_mistakes_are_one_clear_line(flat, weights, options, message):
    given = {"path": str(flat), "model": MODEL, "checkpoint": weights["headless"], "image_px": 64} | options
    with pytest.raises(LeakgaugeError, match=message) as caught:
        ImageFolder(**given).victim()
    assert "\n" not in str(caught.value)


def test_a_head_that_does_not_match_is_refused(labelled, weights):
    with pytest.raises(ConfigError, match="do not match the 1000 classes"):
        folder_task(labelled, weights["head"], quality="head").split("search")


def test_a_class_without_probe_images_is_refused(labelled, weights):
    with pytest.raises(DataError, match=r"has no image in the probe's split of 2 -- .*per_split.victim"):
        folder_task(labelled, weights["head"], per_split={"victim": 2}).victim()
