"""Reads a user's images from a folder or a zip archive: lists, decodes safely, never writes to disk."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from leakgauge.benchmarks.tasks.own_images.class_folders import ClassFolders, classes_of
from leakgauge.benchmarks.tasks.own_images.image_listing import (
    SUFFIXES,
    Listing,
    list_folder,
    list_zip,
    open_zip,
    shown,
    summed_suffixes,
)
from leakgauge.harness.errors import DataError, LeakgaugeError
from leakgauge.harness.values.decoding import MAX_FILE_BYTES

MAX_DECODED_BYTES = 8 * 2**30

Reader = Callable[[str], bytes]
Decoder = Callable[[bytes], Tensor]


@dataclass(frozen=True)
class ImageFiles:
    """The image files of a folder or archive, sorted by name.

    Args:
        path: The folder or zip archive.
        names: Paths inside it as they are shown, with forward slashes.
        classes: Sorted class names, or None where the files carry no labels.
        labels: Position of each file's class in ``classes``; empty without labels.
        listing: How to open each, and what was passed over.
        labels_from: What decided the classes, in words.
    """

    path: Path
    names: tuple[str, ...]
    classes: tuple[str, ...] | None
    labels: tuple[int, ...]
    listing: Listing
    labels_from: str

    @classmethod
    def find(cls, path: Path, rule: ClassFolders = "auto") -> ImageFiles:
        """Lists the images and names their classes (``class_folders``).

        Raises:
            DataError: The path is missing, unreadable or without images, or its classes are in doubt.
        """
        packed, where = path.is_file(), str(path)
        listing = list_zip(path) if packed else list_folder(path)
        names = tuple(sorted(listing.names))
        if not names:
            passed = summed_suffixes(listing.skipped + listing.not_entered)
            found = "; passed over: " + ", ".join(f"{count} {cause}" for cause, count in passed.items())
            hint = f"put files there that end in one of {' '.join(sorted(SUFFIXES))}"
            raise DataError(f"no images found{found if passed else ''}", where=where, hint=hint)
        classes = classes_of(names, listing, rule, packed=packed, where=where)
        return cls(path, names, classes.names, classes.numbers, listing, classes.decided_by)

    def __len__(self) -> int:
        return len(self.names)

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Yields a function from a name to the file's bytes, which raises ValueError above the size limit."""
        opened = self.listing.names
        if not self.path.is_file():
            yield lambda name: _read(open(opened[name], "rb"))  # noqa: SIM115, PTH123 - closed there
            return
        with open_zip(self.path) as archive:
            yield lambda name: _read(archive.open(opened[name]))

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

    def load(
        self, rows: Sequence[int], px: int, decode: Decoder, *, skip_broken: bool
    ) -> tuple[Tensor, list[int], Counter[str]]:
        """Decodes files.

        Args:
            rows: Which files, by position.
            px: Side of the images.
            decode: Makes (3, px, px) uint8 of a file's bytes.
            skip_broken: Leave out what cannot be read or decoded.

        Returns:
            (N, 3, px, px) uint8 images, the rows that they come from, and how many were left out, by cause.

        Raises:
            DataError: A file cannot be decoded and is not to be skipped, or the images would not fit into memory.
        """
        size = len(rows) * 3 * px * px
        if size > MAX_DECODED_BYTES:
            raise DataError(
                f"{len(rows)} images of {px} px need {size / 2**30:.1f} GiB of at most {MAX_DECODED_BYTES >> 30}",
                where=str(self.path),
                hint="give all counts of `per_split`, or a smaller `image_px`",
            )
        pixels, kept, broken = torch.empty(len(rows), 3, px, px, dtype=torch.uint8), list[int](), Counter[str]()
        with self.reader() as read:
            for row in rows:
                cause = "cannot be read"
                try:
                    data = read(self.names[row])
                    cause = "cannot be decoded"
                    pixels[len(kept)] = decode(data)
                except LeakgaugeError:
                    raise
                except Exception as error:  # PIL and zipfile raise many kinds for broken data
                    if not skip_broken:
                        raise DataError(
                            f"image {self.names[row]!r} {cause}: {shown(str(error)) or type(error).__name__}",
                            where=str(self.path),
                            hint="mend or remove the file, or set `skip_broken: true`",
                        ) from error
                    broken[cause] += 1
                    continue
                kept.append(row)
        return pixels[: len(kept)], kept, broken


def _read(opened: IO[bytes]) -> bytes:
    """Reads a file, but never past the limit: the size that an archive declares is not to be trusted."""
    with opened as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    return data
