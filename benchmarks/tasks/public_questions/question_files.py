"""Reads public data sets of questions about images: a JSON file and images in a folder, or a data set of the hub."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from leakgauge.harness.errors import ConfigError, DataError, StoreError
from leakgauge.harness.system.files.bounded_file import MIB, read_json
from leakgauge.harness.values.decoding import MAX_FILE_BYTES
from leakgauge.harness.values.questions import Question

MAX_QUESTION_BYTES = 8192 * MIB
HUB = "hub"
"""Value of ``path`` that stands for the data set on the Hugging Face hub."""


class PictureFile(NamedTuple):
    """An image that questions are asked about: where it should lie, and how to get its bytes; None: it is missing."""

    place: str
    read: Callable[[], bytes] | None


@dataclass
class QuestionFiles:
    """Questions about named images, before anything is decoded.

    Args:
        where: The file or data set, for messages.
        pictures: The images by name.
        asked: For each image the questions with their identifiers.
    """

    where: str
    pictures: dict[str, PictureFile] = field(default_factory=dict)
    asked: dict[str, list[tuple[str, Question]]] = field(default_factory=dict)

    def add(self, number: str, image: str, question: Question) -> None:
        """Adds a question about an image.

        Args:
            number: Identifier of the question.
            image: Name of the image.
            question: The question.

        Raises:
            DataError: A part of the question is empty.
        """
        for what, text in question._asdict().items():
            if not text.strip():
                raise DataError(f"question {number!r} has an empty {what}", where=self.where, hint="restore the file")
        self.asked.setdefault(image, []).append((number, question))

    def without_missing(self, *, skip: bool) -> int:
        """Leaves out the questions whose image is missing, and returns how many they are.

        Args:
            skip: Whether to; otherwise a missing image is an error.

        Raises:
            DataError: An image is missing and is not to be skipped, or all are.
        """
        missing = [name for name in sorted(self.asked, key=natural) if self.pictures[name].read is None]
        questions = sum(len(self.asked[name]) for name in missing)
        if missing and not skip:
            count = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
            what = f"the image {self.pictures[missing[0]].place} is missing{count} ({questions} questions)"
            raise DataError(what, where=self.where, hint="download the images, or set `skip_missing: true`")
        if len(missing) == len(self.asked):
            what = f"no image is there for {questions} questions" if missing else "no question is about an image"
            raise DataError(what, where=self.where, hint="check `path`")
        for name in missing:
            del self.asked[name]
        return questions


def natural(identifier: str) -> tuple[int, str]:
    """Returns the key by which identifiers sort: numbers by value, which as text do by length and digits."""
    return len(identifier), identifier


def part(row: Mapping[str, Any], key: str, kind: type, *, number: str, where: str) -> Any:
    """Returns a part of a question as the file has it.

    Args:
        row: The question.
        key: Name of the part.
        kind: Type that it must have.
        number: Identifier of the question, for the message.
        where: The file, for the message.

    Raises:
        DataError: It is missing or of another type.
    """
    value = row.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DataError(
            f"question {number!r} has {key} = {value!r}, not {kind.__name__}",
            where=where,
            hint="take the official file",
        )
    return value


def read_mapping(path: Path) -> dict[str, Any]:
    """Returns the mapping in a JSON file.

    Raises:
        DataError: The file is missing, no JSON, or holds something else.
    """
    if not path.exists():
        raise DataError("no such file", where=str(path), hint="download it, or check `path`")
    try:
        data = read_json(path, MAX_QUESTION_BYTES, hint="download it again")
    except StoreError as error:
        raise DataError(f"cannot be read as JSON: {error.what}", where=str(path), hint="download it again") from error
    if not isinstance(data, dict):
        raise DataError("the file holds no mapping", where=str(path), hint="take the official file")
    return data


def find_first(root: Path, names: Iterable[str]) -> Path:
    """Returns the first of some files that lies in a folder.

    Raises:
        DataError: The folder is missing, or none of them is in it.
    """
    if not root.is_dir():
        raise DataError("no such folder", where=str(root), hint=f"check `path`, or take `path: {HUB}`")
    candidates = [root / name for name in names]
    for path in candidates:
        if path.is_file():
            return path
    shown = " nor ".join(path.relative_to(root).as_posix() for path in candidates)
    raise DataError(f"the folder holds no {shown}", where=str(root), hint="download it there, or check `path`")


def picture_file(root: Path, names: Iterable[str]) -> PictureFile:
    """Returns the image in the first of some files that is there; else the first as the place where it is missing."""
    places = list(names)
    for place in places:
        path = root / place
        # A name from a data file must not lead out of the folder.
        if path.is_relative_to(root) and ".." not in path.parts and path.is_file():
            return PictureFile(place, partial(_bytes, path))
    return PictureFile(places[0], None)


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    return path.read_bytes()


def on_hub(name: str, file: str, kind: Literal["model", "dataset"]) -> bool:
    """Tells whether a file of the hub is in the local cache, or can be reached; asks once, and waits five seconds.

    Args:
        name: Name of the model or data set.
        file: A file that it has.
        kind: Which of both it is.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache  # noqa: PLC0415 - slow

    if isinstance(try_to_load_from_cache(name, file, repo_type=kind), str):
        return True
    try:
        get_hf_file_metadata(hf_hub_url(name, file, repo_type=kind), timeout=5)
    except Exception:  # of many kinds; what keeps it away is not told here
        return False
    return True


def hub_rows(name: str, config: str | None, split: str) -> Any:
    """Returns a split of a data set on the hub; images in it stay encoded, as mappings with their ``bytes``.

    Args:
        name: Name of the data set.
        config: Its configuration, None where it has but one.
        split: Name of the split.

    Raises:
        ConfigError: The library ``datasets`` is not installed.
        DataError: The data set cannot be loaded.
    """
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise ConfigError(
            "data sets of the hub need the library `datasets`, which is not installed",
            where=f"path: {HUB}",
            hint='pip install "leakgauge[data]", or give a local folder',
        ) from error
    try:
        rows = datasets.load_dataset(name, config, split=split)
        return rows.cast_column("image", datasets.Image(decode=False)) if "image" in rows.column_names else rows
    except Exception as error:  # it raises many kinds
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise DataError(
            f"the data set cannot be loaded: {first_line}",
            where=f"{name} on the hub",
            hint="check the network, or download the official files and give their folder",
        ) from error


def hub_picture(rows: Any, row: int, place: str) -> PictureFile:
    """Returns the image in a row of a data set of the hub; its bytes are fetched when they are wanted."""
    return PictureFile(place, lambda: bytes(rows[row]["image"]["bytes"]))
