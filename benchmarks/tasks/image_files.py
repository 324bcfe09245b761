"""Reads a user's images from a folder or a zip archive: finds classes, decodes safely, never writes to disk."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import torch
from torch import Tensor

from harness.decoding import MAX_FILE_BYTES
from harness.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"})
MAX_TOTAL_BYTES = 256 * 2**30
"""Limit on what the images of an archive may unpack to."""
MAX_DECODED_BYTES = 8 * 2**30

Reader = Callable[[str], bytes]
Decoder = Callable[[bytes], Tensor]


def _is_image(path: PurePosixPath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


@dataclass(frozen=True)
class ImageFiles:
    """The image files of a folder or archive, sorted by name.

    Args:
        path: The folder or zip archive.
        names: Paths inside it, with forward slashes.
        classes: Sorted class names, or None where the files carry no labels.
        labels: Position of each file's class in ``classes``; empty without labels.
    """

    path: Path
    names: tuple[str, ...]
    classes: tuple[str, ...] | None
    labels: tuple[int, ...]

    @classmethod
    def find(cls, path: Path) -> ImageFiles:
        """Lists the images. The parent folder names the class where all images lie equally deep in several folders.

        Raises:
            DataError: The path is missing, unreadable, without images, or mixes depths.
        """
        names = tuple(sorted(_list_zip(path) if path.is_file() else _list_folder(path)))
        where = str(path)
        if not names:
            kinds = " ".join(sorted(SUFFIXES))
            raise DataError("no images found", where=where, mend=f"put files there that end in one of {kinds}")
        parents = [PurePosixPath(name).parent for name in names]
        depths = [len(parent.parts) for parent in parents]
        if len(set(depths)) > 1:
            shallow, deep = names[depths.index(min(depths))], names[depths.index(max(depths))]
            raise DataError(
                f"images lie at different depths, {shallow!r} and {deep!r}",
                where=where,
                mend="put all into one folder (no labels) or each into CLASS/ (labels)",
            )
        classes = tuple(sorted({parent.name for parent in parents}))
        if len(classes) < 2:
            return cls(path, names, None, ())
        number = {name: i for i, name in enumerate(classes)}
        return cls(path, names, classes, tuple(number[parent.name] for parent in parents))

    def __len__(self) -> int:
        return len(self.names)

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Yields a function from a name to the file's bytes, which raises ValueError above the size limit."""
        if not self.path.is_file():
            yield lambda name: _read((self.path / name).open("rb"))
            return
        with zipfile.ZipFile(self.path) as archive:
            yield lambda name: _read(archive.open(name))

    def digests(self) -> list[str]:
        """Returns a hash of every file's bytes, by which files can be ordered without regard to their names."""
        found = []
        with self.reader() as read:
            for name in self.names:
                try:
                    found.append(hashlib.sha256(read(name)).hexdigest())
                except Exception:  # broken files are reported where they are decoded
                    found.append("")
        return found

    def load(self, rows: Sequence[int], px: int, decode: Decoder, *, skip_broken: bool) -> tuple[Tensor, list[int]]:
        """Decodes files.

        Args:
            rows: Which files, by position.
            px: Side of the images.
            decode: Makes (3, px, px) uint8 of a file's bytes.
            skip_broken: Leave out what cannot be decoded.

        Returns:
            (N, 3, px, px) uint8 images, and the rows that they come from.

        Raises:
            DataError: A file cannot be decoded and is not to be skipped, or the images would not fit into memory.
        """
        size = len(rows) * 3 * px * px
        if size > MAX_DECODED_BYTES:
            raise DataError(
                f"{len(rows)} images of {px} px need {size / 2**30:.1f} GiB of at most {MAX_DECODED_BYTES >> 30}",
                where=str(self.path),
                mend="give all counts of `per_split`, or a smaller `image_px`",
            )
        pixels, kept = torch.empty(len(rows), 3, px, px, dtype=torch.uint8), list[int]()
        with self.reader() as read:
            for row in rows:
                try:
                    pixels[len(kept)] = decode(read(self.names[row]))
                except Exception as error:  # PIL and zipfile raise many kinds for broken data
                    if not skip_broken:
                        raise DataError(
                            f"image {self.names[row]!r} cannot be decoded: {str(error) or type(error).__name__}",
                            where=str(self.path),
                            mend="mend or remove the file, or set `skip_broken: true`",
                        ) from error
                    continue
                kept.append(row)
        return pixels[: len(kept)], kept


def _read(opened: IO[bytes]) -> bytes:
    """Reads a file, but never past the limit: the size that an archive declares is not to be trusted."""
    with opened as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    return data


def _list_folder(path: Path) -> list[str]:
    try:
        if not path.is_dir():
            raise DataError("no such folder or zip archive", where=str(path), mend="check `path`")
        found = [item.relative_to(path).as_posix() for item in path.rglob("*") if item.is_file()]
    except OSError as error:
        raise DataError(f"cannot read the folder: {error}", where=str(path), mend="check its permissions") from error
    return [name for name in found if _is_image(PurePosixPath(name))]


def _list_zip(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [item for item in archive.infolist() if not item.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"not a readable zip archive: {error}", where=str(path), mend="give a folder or a .zip"
        ) from error
    images = {item.filename: item for item in members if _is_image(PurePosixPath(item.filename))}
    total = sum(item.file_size for item in images.values())
    if total > MAX_TOTAL_BYTES:
        raise DataError(
            f"the images unpack to {total / 2**30:.0f} GiB, the limit is {MAX_TOTAL_BYTES >> 30} GiB",
            where=str(path),
            mend="unpack it to a folder, or make a smaller archive",
        )
    if any(item.flag_bits & 1 for item in images.values()):
        raise DataError("the archive is encrypted", where=str(path), mend="unpack it to a folder")
    return list(images)
