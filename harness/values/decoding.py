"""Decodes image files safely: upright, opaque, RGB, the centre square reduced to the size that a victim takes.

Every image of a user's is read here and nowhere else. Colour profiles are not applied, as torchvision and timm do not.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageFile, ImageOps
from torch import Tensor

from leakgauge.harness.errors import ConfigError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MAX_FILE_BYTES = 64 * 2**20
MAX_SOURCE_PIXELS = 64_000_000
"""Limit on one image before it is reduced: a small file may decode to gigabytes."""

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)

COMPOSED, PROFILE, TURNED = "composed over the background", "colour profile not applied", "turned upright"
FRAMES, DEEP, INK = "first of several frames", "16 bits reduced to 8", "CMYK read without a profile"
ENLARGED = "enlarged"
_WEBP_FLAGS, _ORIENTATION = 20, 0x0112
_TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT, _WHITE_IS_ZERO, _SIGNED = 262, 339, 0, 2


class DecodedPicture(NamedTuple):
    """An image as it is seen: RGB, upright and opaque; and what had to be done to it, in words."""

    image: Image.Image
    done: tuple[str, ...]


def as_colour(value: object) -> Colour:
    """Reads an option that names a colour: a name or ``#rrggbb`` as in CSS, or three numbers from 0 to 255.

    Raises:
        ConfigError: It is none of these.
    """
    given = value
    if isinstance(value, str):
        try:
            given = ImageColor.getrgb(value)
        except ValueError:
            given = None
    rgb = list(given) if isinstance(given, list | tuple) else []
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in rgb)
    if not whole or len(rgb) != len(WHITE) or not all(0 <= v <= max(WHITE) for v in rgb):
        raise ConfigError(f"{value!r} is no opaque colour", where="background", hint="try `white` or [255, 255, 255]")
    return (rgb[0], rgb[1], rgb[2])


def colour_name(colour: Colour) -> str:
    """Writes a colour: ``white``, or ``#rrggbb``."""
    return "white" if colour == WHITE else f"#{bytes(colour).hex()}"


def read_picture(data: bytes, background: Colour = WHITE) -> DecodedPicture:
    """Decodes one image: its first frame, turned upright as its EXIF orientation says, over one background.

    Colours behind transparent pixels cannot be seen, so they never become image content.

    Args:
        data: The file.
        background: What lies behind transparent parts.

    Raises:
        ValueError: It is too large, or of a kind that has no RGB form. PIL raises much else where data is broken.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of odd metadata; its size warning is the check below
        with Image.open(io.BytesIO(_with_alpha(data)), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_SOURCE_PIXELS:
                raise ValueError(f"{width} x {height} px is above the limit of {MAX_SOURCE_PIXELS:,} px")
            rawmode, box, done = _rawmode(image), _covered(image), list[str]()
            several = getattr(image, "n_frames", 1) > 1
            # Before loading: PIL turns TIFFs upright by itself while it loads them.
            turned = image.getexif().get(_ORIENTATION, 1) not in {0, 1}
            image.load()
            mode, profile = image.mode, image.info.get("icc_profile")
            opaque = ImageOps.exif_transpose(_opaque(image, rawmode, box, background, done))
        for what, so in ((FRAMES, several), (TURNED, turned), (PROFILE, bool(profile)), (INK, mode == "CMYK")):
            if so:
                done.append(what)
        if "16" in rawmode or mode.startswith("I"):
            done.append(DEEP)
        return DecodedPicture(opaque, tuple(done))


def _with_alpha(data: bytes) -> bytes:
    """Returns an animated WebP with its flag of transparency set: encoders leave it out where frames have it."""
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and len(data) > _WEBP_FLAGS and data[_WEBP_FLAGS] & 2:
        return data[:_WEBP_FLAGS] + bytes([data[_WEBP_FLAGS] | 16]) + data[_WEBP_FLAGS + 1 :]
    return data


def _covered(image: ImageFile.ImageFile) -> tuple[int, int, int, int]:
    """Returns the part of the canvas that the first frame covers, as PIL writes boxes."""
    box = image.tile[0][1] if image.format == "GIF" and image.tile else None
    return box or (0, 0, *image.size)


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Returns how PIL will unpack the file's pixels, the empty text where it does not say."""
    args = image.tile[0][3] if image.tile else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _opaque(
    image: Image.Image, rawmode: str, box: tuple[int, int, int, int], background: Colour, done: list[str]
) -> Image.Image:
    """Returns a loaded image as RGB over the background, its EXIF orientation kept; ``done`` tells where it showed."""
    tiff: Mapping[int, object] = getattr(image, "tag_v2", {})
    if (image.mode == "I" and image.format != "PPM") or image.mode == "F":
        raise ValueError(f"pixel mode {image.mode} has no fixed range")
    formats = tiff.get(_TIFF_SAMPLE_FORMAT, ())
    if isinstance(formats, tuple) and _SIGNED in formats:
        raise ValueError("signed pixels have no fixed range")
    visible, shown = _visible(image, rawmode), image
    if image.mode.startswith("I"):  # PIL would clip 16 bits to 255
        grey = (np.asarray(image).astype(np.int64) >> (4 if rawmode == "I;12" else 8)).clip(0, 255).astype(np.uint8)
        shown = Image.fromarray(255 - grey if tiff.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO else grey)
    if visible is None and not image.has_transparency_data and box == (0, 0, *image.size):
        opaque = shown.convert("RGB")
    else:
        layer = Image.new("RGBA", image.size)
        layer.paste(_with_channel(shown, visible).crop(box), box)
        if layer.getchannel("A").getextrema() != (255, 255):
            done.append(COMPOSED)
        opaque = Image.alpha_composite(Image.new("RGBA", image.size, background), layer).convert("RGB")
    turn = Image.Exif()
    turn[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    opaque.info["exif"] = turn.tobytes()
    return opaque


def _with_channel(image: Image.Image, visible: NDArray[np.uint8] | None) -> Image.Image:
    """Returns an image as RGBA: with (H, W) ``visible`` as its last channel, or where None with what it declares."""
    if visible is None:
        return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    plain = image.copy()
    plain.info.pop("transparency", None)
    rgba = plain.convert("RGB")
    rgba.putalpha(Image.fromarray(visible))
    return rgba


def _visible(image: Image.Image, rawmode: str) -> NDArray[np.uint8] | None:
    """Returns (H, W) 255 where a pixel differs from the one colour that is declared transparent; None: no such colour.

    That colour is written in the file's own depth, which need not be that of the pixels in memory.
    """
    declared = image.info.get("transparency")
    if image.mode == "P" or declared is None or isinstance(declared, bytes):
        return None
    pixels = np.asarray(image)
    if image.mode == "RGB":
        colour = [value >> 8 if "16" in rawmode else value for value in declared]
        same = (pixels == np.array(colour)).all(axis=2)
    elif image.mode.startswith("I;16"):
        same = pixels == declared
    elif image.mode == "1":
        same = pixels == bool(declared)
    else:
        step = {"L;2": 85, "L;4": 17}.get(rawmode, 1)
        same = pixels == declared * step
    return np.where(same, 0, 255).astype(np.uint8)


def upright_rgb(data: bytes, background: Colour = WHITE) -> Image.Image:
    """Returns the image of ``read_picture``, and raises as it does."""
    return read_picture(data, background).image


def resampling(interpolation: str) -> Image.Resampling:
    """Returns PIL's filter of a name: bicubic, bilinear, lanczos, box, hamming or nearest."""
    return Image.Resampling[interpolation.upper()]


def centre_square(image: Image.Image, px: int, interpolation: str = "bicubic", crop_share: float = 1.0) -> Tensor:
    """Returns the centre square of an RGB image as (3, px, px) uint8, by an antialiased filter.

    Args:
        image: The image.
        px: Side of the result.
        interpolation: Name of the filter; see ``resampling``.
        crop_share: Side of the square that is cut out, as a share of the shorter side.
    """
    side = min(image.size) * crop_share
    left, top = (image.width - side) / 2, (image.height - side) / 2
    square = image.resize((px, px), resampling(interpolation), box=(left, top, left + side, top + side))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def decode(data: bytes, px: int, background: Colour = WHITE) -> Tensor:
    """Decodes one image and reduces its centre square: (3, px, px) uint8. Raises as ``read_picture`` does."""
    return centre_square(upright_rgb(data, background), px)
