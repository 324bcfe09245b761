"""Near duplicates: what a careless export does to a picture is found, and what merely looks alike is not."""

import io
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from leakgauge.harness.errors import DataError
from leakgauge.harness.measurement.near_duplicates import (
    CHUNK,
    Bank,
    _pairs,
    check_disjoint,
    describe,
    duplicate_groups,
    find_copies,
)
from leakgauge.harness.values.images import ImageSet

PX = 64
MARGIN = 4
SOURCES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png")


def near_duplicates(a, b, chunk=CHUNK):
    """Pairs of positions; where both are the same set, every image pairs with itself too."""
    if not len(a) or not len(b):
        return []
    return [(i, j) for i, j, _ in _pairs(describe(a), Bank(describe(b)), chunk)]


@pytest.fixture(scope="module")
def pictures() -> ImageSet:
    """32 windows of four photographs that do not overlap."""
    windows = []
    for source in SOURCES:
        with (files("skimage") / "data" / source).open("rb") as stream:
            pixels = torch.from_numpy(np.array(Image.open(stream).convert("RGB"))).permute(2, 0, 1)
        tops = (40, 160)
        windows += [pixels[:, t : t + PX, left : left + PX] for t in tops for left in (30, 120, 210, 300)]
    return ImageSet.from_pixels(torch.stack(windows))


def cut(images: ImageSet, down: int = 0, right: int = 0) -> torch.Tensor:
    """A window that leaves room for shifts."""
    side = PX - 2 * MARGIN
    top, left = MARGIN + down, MARGIN + right
    return images.pixels[:, :, top : top + side, left : left + side]


def recompressed(pixels: torch.Tensor, quality: int) -> torch.Tensor:
    out = []
    for image in pixels:
        stream = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(stream, "JPEG", quality=quality)
        out.append(torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1))
    return torch.stack(out)


def scaled(pixels: torch.Tensor, gain: float, offset: float = 0) -> torch.Tensor:
    return (pixels.float() * gain + offset).clamp(0, 255).byte()


COPIES = {
    "identical": cut,
    "one pixel right": lambda s: cut(s, 0, 1),
    "one pixel up": lambda s: cut(s, -1, 0),
    "two pixels diagonally": lambda s: cut(s, 2, -1),
    "JPEG 90": lambda s: recompressed(cut(s), 90),
    "JPEG 75": lambda s: recompressed(cut(s), 75),
    "brighter": lambda s: scaled(cut(s), 1.0, 8),
    "less contrast": lambda s: scaled(cut(s), 0.85, 10),
    "shifted, brighter and recompressed": lambda s: recompressed(scaled(cut(s, 1, 1), 1.05), 80),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_nothing_else(pictures, kind):
    originals, copies = ImageSet.from_pixels(cut(pictures)), ImageSet.from_pixels(COPIES[kind](pictures))
    pairs = near_duplicates(originals, copies)
    assert pairs == [(i, i) for i in range(len(originals))]


def larger(side: int) -> list[Image.Image]:
    """Twelve windows of photographs, with room for what an editor does to a picture."""
    found = []
    for source in SOURCES[:3]:
        with (files("skimage") / "data" / source).open("rb") as stream:
            image = Image.open(stream).convert("RGB")
        found += [image.crop((x, y, x + side, y + side)) for x in (10, 200) for y in (10, 130)]
    return found


def resized(images: list[Image.Image]) -> ImageSet:
    small = [torch.from_numpy(np.array(image.resize((PX, PX), Image.Resampling.BICUBIC))) for image in images]
    return ImageSet.from_pixels(torch.stack(small).permute(0, 3, 1, 2).contiguous())


EDITS = {
    "cropped by 5 % on each side": lambda i: ImageOps.crop(i, 8),
    "cropped by 10 % on each side": lambda i: ImageOps.crop(i, 16),
    "cropped at one corner": lambda i: i.crop((0, 0, 150, 150)),
    "in a white frame": lambda i: ImageOps.expand(i, 8, "white"),
    "in a wide black frame": lambda i: ImageOps.expand(i, 14, "black"),
    "mirrored": ImageOps.mirror,
    "mirrored and cropped": lambda i: ImageOps.crop(ImageOps.mirror(i), 8),
    "turned": lambda i: i.transpose(Image.Transpose.ROTATE_270),
    "grey": lambda i: i.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("kind", EDITS)
def test_edited_copies_are_found_and_nothing_else(kind):
    originals = larger(160)
    pairs = near_duplicates(resized(originals), resized([EDITS[kind](image) for image in originals]))
    assert [i for i, j in pairs if i != j] == []
    assert len(pairs) >= len(originals) - 1


def test_what_was_found_is_said():
    originals = larger(160)[:4]
    edited = [ImageOps.mirror(originals[0]), ImageOps.crop(originals[1], 8)]
    copies = find_copies(resized([*originals, *edited]))
    assert copies.groups.tolist() == [0, 1, 2, 3, 0, 1]
    assert copies.found == {"mirrored": 1, "cropped, shifted or framed": 1}


@pytest.mark.parametrize("source", ["retina.jpg", "brick.png"])
def test_what_merely_looks_alike_is_not_a_duplicate(source):
    """Left and mirrored right half of one photograph: smooth gradients and a bright rim on black, or a brick wall."""
    with (files("skimage") / "data" / source).open("rb") as stream:
        image = Image.open(stream).convert("RGB").resize((512, 512), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def windows(half):
        step = 20 if source == "retina.jpg" else 32
        cut_out = half.unfold(1, PX, step).unfold(2, PX, step).permute(1, 2, 0, 3, 4).reshape(-1, 3, PX, PX)
        brightness = cut_out.float().mean(1).flatten(1)
        lit = (brightness > 40).float().mean(1) > 0.25  # a tenth of rim on black shows nothing to tell apart
        return ImageSet.from_pixels(cut_out[(brightness.std(1) > 5) & lit])

    def thumbnails(images):
        small = torch.nn.functional.adaptive_avg_pool2d(images.images().mean(1), 16).flatten(1)
        return torch.nn.functional.normalize(small - small.mean(1, keepdim=True))

    left, right = windows(pixels[:, :, :256]), windows(pixels[:, :, 256:].flip(2))
    if source == "retina.jpg":
        assert (thumbnails(left) @ thumbnails(right).T).max() > 0.995  # a plain comparison is fooled
    assert near_duplicates(left, right) == []


def test_gradients_of_different_direction_differ():
    ramp = torch.linspace(0, 255, PX).byte().expand(3, PX, PX)
    wave = (127 + 100 * torch.sin(torch.linspace(0, 9, PX))).byte().expand(3, PX, PX)
    images = [ramp, ramp.transpose(1, 2), wave, wave.transpose(1, 2)]
    a = ImageSet.from_pixels(torch.stack(images))
    # A gradient that is turned is a turned copy; gradients of two kinds are none of one another.
    assert {(i // 2, j // 2) for i, j in near_duplicates(a, a)} == {(0, 0), (1, 1)}


def test_flat_images_are_compared_by_colour():
    def plain(*colours):
        return ImageSet.from_pixels(torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, 3, PX, PX))

    assert near_duplicates(plain((9, 9, 9)), plain((10, 8, 9), (30, 9, 9))) == [(0, 0)]


def test_the_chunk_size_changes_nothing(pictures):
    copies = ImageSet.from_pixels(recompressed(pictures.pixels, 75))
    assert near_duplicates(pictures, copies, chunk=5) == near_duplicates(pictures, copies)
    both = ImageSet.from_pixels(torch.cat([pictures.pixels, copies.pixels]))
    expected = list(range(len(pictures))) * 2
    assert duplicate_groups(both).tolist() == duplicate_groups(both, chunk=7).tolist() == expected


def test_groups_follow_chains(pictures):
    windows = [cut(pictures.select([3]), 0, right) for right in (-4, -2, 0, 2, 4)]
    chain = ImageSet.from_pixels(torch.cat([*windows, cut(pictures.select([9])), windows[0]]))
    assert (0, 4) not in near_duplicates(chain, chain)
    assert duplicate_groups(chain).tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_images_of_different_size_can_be_compared(pictures):
    large = torch.nn.functional.interpolate(pictures.pixels.float(), size=160, mode="bicubic")
    copies = ImageSet.from_pixels(large.clamp(0, 255).byte())
    assert near_duplicates(pictures, copies) == [(i, i) for i in range(len(pictures))]


def test_empty_sets(pictures):
    empty = pictures.select([])
    assert near_duplicates(empty, pictures) == near_duplicates(pictures, empty) == []
    assert duplicate_groups(empty).tolist() == []
    check_disjoint({"a": empty, "b": pictures})


def test_disjoint_splits_pass(pictures):
    check_disjoint({"attacker": pictures.select(range(16)), "evaluation": pictures.select(range(16, 32))})


def test_a_shared_image_is_named(pictures):
    sets = {"attacker": pictures.select(range(8)), "evaluation": pictures.select([20, 5])}
    with pytest.raises(DataError, match=r"'attacker' and 'evaluation': image 5 \(\w+\) and image 1 .* the same image"):
        check_disjoint(sets)


def test_a_near_duplicate_is_named(pictures):
    copy = ImageSet.from_pixels(recompressed(pictures.pixels[7:8], 80))
    with pytest.raises(DataError, match=r"splits 'a' and 'b': image 7 .* image 0 .* near duplicates.* -- keep both"):
        check_disjoint({"a": pictures, "b": copy})
