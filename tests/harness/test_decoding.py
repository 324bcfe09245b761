"""Decoding: what cannot be seen never becomes image content, and every pixel mode keeps its brightness."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.decoding import COMPOSED, DEEP, FRAMES, INK, TURNED, as_colour, decode, read_picture

SIDE = 24
WHITE, RED = [255] * 3, [255, 0, 0]
VISIBLE = np.tile(np.linspace(0, 255, SIDE).astype(np.uint8)[None, :, None], (SIDE, 1, 3))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def seen(data: bytes, **options) -> np.ndarray:
    return np.asarray(read_picture(data, **options).image)


def with_hidden(seed: int | None) -> Image.Image:
    """A ramp below; above, transparent and of random colours that nobody sees (None: of black)."""
    colours, alpha = VISIBLE.copy(), np.full((SIDE, SIDE), 255, np.uint8)
    half = SIDE // 2
    colours[:half] = 0 if seed is None else np.random.default_rng(seed).integers(0, 256, (half, SIDE, 3))
    alpha[:half] = 0
    return Image.fromarray(np.dstack([colours, alpha]))


def png(depth: int, kind: int, rows: list[bytes], **chunks: bytes) -> bytes:
    """A PNG written by hand, for depths that PIL does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", SIDE, len(rows), depth, kind, 0, 0, 0)
    parts = [(b"IHDR", head), *((name.encode(), data) for name, data in chunks.items())]
    parts += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


ALPHA_FILES = {
    "PNG": lambda image: saved(image, "PNG"),
    "grey PNG": lambda image: saved(image.convert("LA"), "PNG"),
    "WebP": lambda image: saved(image, "WEBP", lossless=True, exact=True),
    "TIFF": lambda image: saved(image, "TIFF"),
    "palette TIFF": lambda image: saved(image.convert("PA"), "TIFF"),
    "GIF": lambda image: saved(image, "GIF"),
    "palette PNG": lambda image: saved(image.quantize(64), "PNG"),
    "animated PNG": lambda image: saved(image, "PNG", save_all=True, append_images=[Image.new("RGBA", (SIDE, SIDE))]),
    "animated WebP": lambda image: saved(
        image, "WEBP", save_all=True, lossless=True, exact=True, append_images=[Image.new("RGBA", (SIDE, SIDE), "red")]
    ),
    "animated GIF": lambda image: saved(
        image, "GIF", save_all=True, append_images=[Image.new("RGBA", (SIDE, SIDE), "red")]
    ),
}


@pytest.mark.parametrize("kind", ALPHA_FILES)
def test_hidden_colours_are_not_seen(kind):
    first, second = (read_picture(ALPHA_FILES[kind](with_hidden(seed))) for seed in (1, None))
    a, b = np.asarray(first.image).astype(int), np.asarray(second.image).astype(int)
    assert (a[: SIDE // 2] == 255).all()
    # A palette of few colours shows the ramp by others where the hidden ones take places in it.
    assert np.abs(a - b).max() <= (30 if kind in {"palette PNG", "palette TIFF", "GIF", "animated GIF"} else 0)
    assert np.abs(a[SIDE // 2 :] - VISIBLE[SIDE // 2 :].astype(int)).max() <= 30
    assert COMPOSED in first.done
    assert (FRAMES in first.done) == kind.startswith("animated")


def test_half_transparent_pixels_mix_with_the_background():
    image = saved(Image.new("RGBA", (SIDE, SIDE), (200, 0, 100, 128)), "PNG")
    share = 128 / 255
    for background in ((255, 255, 255), (0, 0, 0), (10, 200, 30)):
        mixed = [share * own + (1 - share) * behind for own, behind in zip((200, 0, 100), background, strict=True)]
        assert seen(image, background=background)[3, 3].tolist() == pytest.approx(mixed, abs=1)


@pytest.mark.parametrize("transparency", [bytes([0, 255]), 0, bytes([0])])
def test_a_palette_may_be_transparent(transparency):
    image = Image.fromarray(np.repeat([0, 1], SIDE * SIDE // 2).reshape(SIDE, SIDE).astype(np.uint8), "P")
    image.putpalette([200, 10, 10, 0, 0, 255] + [0] * 762)
    pixels = seen(saved(image, "PNG", transparency=transparency))
    assert pixels[0, 0].tolist() == WHITE
    assert pixels[-1, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_grey_may_be_transparent_at_any_depth(depth):
    key = (1 << depth) // 2

    def row(value: int) -> bytes:
        return int(format(value, f"0{depth}b") * SIDE, 2).to_bytes(SIDE * depth // 8, "big")

    pixels = seen(png(depth, 0, [row(key)] * 4 + [row(0)] * 4, tRNS=struct.pack(">H", key)))
    assert pixels[0, 0].tolist() == WHITE
    assert pixels[-1, 0].tolist() == [0] * 3
    plain = seen(png(depth, 0, [row(key)] * 4 + [row(0)] * 4))
    assert plain[0, 0, 0] == pytest.approx(255 * key / ((1 << depth) - 1), abs=1)


@pytest.mark.parametrize("depth", [8, 16])
def test_one_colour_may_be_transparent(depth):
    form = ">HHH" if depth == 16 else ">BBB"
    scale = 257 if depth == 16 else 1
    key, other = (struct.pack(form, *(v * scale for v in colour)) for colour in ((10, 20, 30), (200, 20, 30)))
    declared = struct.pack(">HHH", *(v * scale for v in (10, 20, 30)))
    pixels = seen(png(depth, 2, [key * SIDE] * 4 + [other * SIDE] * 4, tRNS=declared))
    assert pixels[0, 0].tolist() == WHITE
    assert pixels[-1, 0].tolist() == [200, 20, 30]


def test_sixteen_bits_with_alpha():
    rows = [struct.pack(">HH", 0x1234, 0) * SIDE] * 4 + [struct.pack(">HH", 0x8000, 0xFFFF) * SIDE] * 4
    pixels = seen(png(16, 4, rows), background=(10, 200, 30))
    assert pixels[0, 0].tolist() == [10, 200, 30]
    assert pixels[-1, 0].tolist() == [128] * 3


def test_what_a_first_frame_leaves_open_is_transparent():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([200, 10, 10, 0, 0, 255] + [0] * 762)
    data = bytearray(saved(image, "GIF"))
    data[6:10] = struct.pack("<HH", 8, 8)  # a larger canvas, the frame at (2, 2)
    start = data.index(b"\x2c\0\0\0\0\4\0\4\0")
    data[start + 1 : start + 5] = struct.pack("<HH", 2, 2)
    pixels = seen(bytes(data))
    assert pixels[0, 0].tolist() == pixels[7, 7].tolist() == WHITE
    assert pixels[3, 3].tolist() == [0, 0, 255]


UPRIGHT = {"RGB": ("PNG", "JPEG", "WEBP", "TIFF"), "RGBA": ("PNG", "WEBP"), "I;16": ("PNG", "TIFF")}


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(mode, kind) for mode, kinds in UPRIGHT.items() for kind in kinds],
)
def test_images_are_upright(kind, mode):
    image = Image.new("RGB", (60, 90), "white")
    image.paste("black", (0, 0, 60, 45))
    image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else image
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it clockwise
    picture = read_picture(saved(image if mode == "I;16" else image.convert(mode), kind, exif=exif))
    pixels = np.asarray(picture.image)
    assert pixels.shape == (60, 90, 3)
    assert pixels[30, 3].min() > 250
    assert pixels[30, 86].max() < 5
    assert TURNED in picture.done
    assert decode(saved(image, "PNG"), 30).shape == (3, 30, 30)


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "JPEG"), ("1", "PNG")]
)
def test_other_modes_keep_their_colours(mode, kind):
    colour = {"1": (255, 255, 255), "L": (90, 90, 90), "P": (204, 51, 102)}.get(mode, (200, 30, 90))
    picture = read_picture(saved(Image.new("RGB", (SIDE, SIDE), colour).convert(mode), kind))
    assert np.asarray(picture.image)[5, 5].tolist() == pytest.approx(colour, abs=3)
    assert (INK in picture.done) == (mode == "CMYK")
    assert COMPOSED not in picture.done


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF, white is zero", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    ramp = Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16))
    negative = kind.endswith("zero")
    picture = read_picture(saved(ramp, kind.partition(",")[0], **({"tiffinfo": {262: 0}} if negative else {})))
    pixels = np.asarray(picture.image)
    assert pixels.mean() == pytest.approx(127, abs=1)
    assert (pixels[0, 0, 0] > pixels[-1, -1, 0]) == negative
    assert DEEP in picture.done


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_fixed_range_are_refused(mode):
    with pytest.raises(ValueError, match="no fixed range"):
        read_picture(saved(Image.new("L", (8, 8), 9).convert(mode), "TIFF"))


def test_colours_are_read_and_refused():
    assert as_colour("white") == as_colour("#ffffff") == as_colour([255, 255, 255]) == (255, 255, 255)
    for wrong in ("ultrawhite", [1, 2], [1, 2, 300], "#ff000080", None, [True, 0, 0]):
        with pytest.raises(ConfigError, match=r"background: .* is no opaque colour -- try"):
            as_colour(wrong)
