"""Lists the image files of a folder or a zip archive, and counts by cause whatever it passes over."""

from __future__ import annotations

import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from leakgauge.harness.errors import DataError

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .bmp .dib .gif .webp .tif .tiff .ppm .pgm .pbm .pnm".split()  # noqa: SIM905
)
MAX_TOTAL_BYTES = 256 * 2**30
"""Limit on what the images of an archive may unpack to."""
MAX_LISTED = 2_000_000
"""Limit on the entries of a folder: links that cross one another name the same files in ever more ways."""
SHOWN_SUFFIXES = 12
MAX_TARGET_BYTES = 4096

HIDDEN, OUTSIDE, REPEATED = "hidden", "name leads out of the archive", "name occurs twice in the archive"
NOWHERE, LOOP, UNREADABLE = "links that lead nowhere", "links back to a folder above", "folders that cannot be read"
EMPTY, SPECIAL = "empty folders", "neither file nor folder"
_SYSTEM = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "#recycle"})


@dataclass
class Listing:
    """What a folder or an archive holds.

    Args:
        names: For each image the name that is shown, with forward slashes, and the path or member to open.
        skipped: Files that are no images to us, by cause.
        not_entered: Folders and links that were not followed, by cause.
        barren: Folders, by their shown names, in which something was passed over, and the cause.
        hidden: Shown names of hidden images.
    """

    names: dict[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    not_entered: Counter[str] = field(default_factory=Counter)
    barren: dict[str, str] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)

    def add(self, name: str, opened: str) -> None:
        """Takes a file in, or counts why not."""
        suffix, name = PurePosixPath(name).suffix.lower(), shown(name)
        if suffix not in SUFFIXES or is_hidden(name):
            self.skip(name, f"suffix {shown(suffix)}" if suffix else "no suffix")
            return
        if name in self.names:
            self.skipped[REPEATED] += 1
        self.names[name] = opened  # the last of the same name is the one that unpacking leaves
        if len(self.names) + self.skipped.total() > MAX_LISTED:
            raise DataError(f"more than {MAX_LISTED:,} files", where=name, hint="take out links that cross one another")

    def skip(self, name: str, cause: str) -> None:
        """Counts a file that is not taken in."""
        path = PurePosixPath(shown(name))
        if not is_hidden(name):
            self.skipped[cause] += 1
            self.barren.setdefault(str(path.parent), cause)
        elif ".." in path.parts:
            self.skipped[OUTSIDE] += 1
        else:
            self.skipped[HIDDEN] += 1
            if path.suffix.lower() in SUFFIXES:
                self.hidden.add(str(path))

    def pass_over(self, folder: str, cause: str) -> None:
        """Counts a folder or link that was not entered."""
        self.not_entered[cause] += 1
        if cause != LOOP and not is_hidden(folder):
            self.barren.setdefault(shown(folder), cause)

    def empty_folders(self) -> dict[str, str]:
        """Returns the visible folders that give no image, neither themselves nor below, and why."""
        giving = {str(folder) for name in self.names for folder in PurePosixPath(name).parents}
        return {folder: cause for folder, cause in self.barren.items() if folder not in giving and folder != "."}


def shown(text: str) -> str:
    """Returns text from outside as it may be printed: what no terminal or file should get stands as an escape."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)


def summed_suffixes(skipped: Counter[str]) -> dict[str, int]:
    """Returns causes by count, rare suffixes as one."""
    suffixes = [(cause, count) for cause, count in skipped.most_common() if cause.startswith("suffix ")]
    kept = dict(skipped)
    for cause, count in suffixes[SHOWN_SUFFIXES:]:
        del kept[cause]
        kept["other suffixes"] = kept.get("other suffixes", 0) + count
    return dict(sorted(kept.items(), key=lambda item: -item[1]))


def is_hidden(name: str) -> bool:
    """Tells whether a part of a name hides it, or belongs to a system's own folders."""
    return any(part.startswith(".") or part in _SYSTEM for part in PurePosixPath(name).parts)


def list_folder(path: Path) -> Listing:
    """Lists a folder, links followed unless they lead back to a folder above.

    Raises:
        DataError: There is no such folder, or it cannot be read.
    """
    if not path.is_dir():
        raise DataError("no such folder or zip archive", where=str(path), hint="check `path`")
    found = Listing()
    waiting = [(path, "", frozenset[tuple[int, int]]())]
    while waiting:
        folder, prefix, above = waiting.pop()
        try:
            about = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if not prefix:
                what = f"cannot read the folder: {error.strerror or error}"
                raise DataError(what, where=str(path), hint="check its permissions") from error
            found.pass_over(prefix, UNREADABLE)
            continue
        here = (about.st_dev, about.st_ino)
        if here in above:
            found.pass_over(prefix, LOOP)
            continue
        if not entries and prefix:
            found.pass_over(prefix, EMPTY)
        for entry in entries:
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            kind = _kind(entry)
            if kind == "folder":
                waiting.append((Path(entry.path), name, above | {here}))
            elif kind == "file":
                found.add(name, entry.path)
            elif kind == SPECIAL or PurePosixPath(name).suffix.lower() in SUFFIXES:
                found.skip(name, kind)
            else:
                found.pass_over(name, kind)
    return found


def _kind(entry: os.DirEntry[str]) -> str:
    """Returns ``folder``, ``file``, or why an entry is neither."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        return NOWHERE if entry.is_symlink() else SPECIAL
    except OSError:  # a link to itself
        return NOWHERE


def open_zip(path: Path) -> zipfile.ZipFile:
    """Opens an archive.

    Raises:
        DataError: It is damaged, or of a kind or version that this Python does not read.
    """
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # of many kinds: a version that is not known, damaged records, what the system says
        what = f"not a readable zip archive: {str(error) or type(error).__name__}"
        raise DataError(shown(what), where=str(path), hint="pack it again, or give a folder") from error


def list_zip(path: Path) -> Listing:
    """Lists an archive; links in it are followed where they lead to members.

    Raises:
        DataError: It cannot be read, is encrypted, or unpacks to too much.
    """
    found = Listing()
    with open_zip(path) as archive:
        members = archive.infolist()
        names = {_slashed(item): item.filename for item in members if not item.is_dir() and not _is_link(item)}
        for item in members:
            if _is_link(item):
                _follow(archive, item, names, found)
            elif not item.is_dir():
                found.add(_slashed(item), item.filename)
        filled = {str(folder) for name in names for folder in PurePosixPath(name).parents}
        for name in (_slashed(item) for item in members if item.is_dir()):
            if name not in filled and not is_hidden(name):
                found.pass_over(name, EMPTY)
        sizes = {item.filename: item for item in members}
        opened = [sizes[member] for member in found.names.values()]
    total = sum(item.file_size for item in opened)
    if total > MAX_TOTAL_BYTES:
        raise DataError(
            f"the images unpack to {total / 2**30:.0f} GiB, the limit is {MAX_TOTAL_BYTES >> 30} GiB",
            where=str(path),
            hint="unpack it to a folder, or make a smaller archive",
        )
    if any(item.flag_bits & 1 for item in opened):
        raise DataError("the archive is encrypted", where=str(path), hint="unpack it to a folder")
    return found


def _slashed(item: zipfile.ZipInfo) -> str:
    """Returns a member's name with forward slashes, which not all of those who pack archives write."""
    return item.filename.replace("\\", "/").rstrip("/")


def _is_link(item: zipfile.ZipInfo) -> bool:
    return item.create_system == 3 and stat.S_ISLNK(item.external_attr >> 16)


def _follow(archive: zipfile.ZipFile, link: zipfile.ZipInfo, names: dict[str, str], found: Listing) -> None:
    """Takes in the members that a link leads to, under the link's own name."""
    name = _slashed(link)
    try:
        with archive.open(link) as stream:
            target = stream.read(MAX_TARGET_BYTES).decode()
    except Exception:  # damaged data, an unknown method
        target = ""
    goal = os.path.normpath(f"{PurePosixPath(name).parent}/{target}")
    reached = list(_below(goal, name, names)) if target and not target.startswith("/") else []
    for alias, member in reached:
        found.add(alias, member)
    if not reached:
        above = goal == "." or f"{name}/".startswith(f"{goal}/")
        found.pass_over(name, LOOP if target and above else NOWHERE)


def _below(goal: str, name: str, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yields the members at or below ``goal`` under names that start with ``name``; none where it holds the link."""
    if f"{name}/".startswith(f"{goal}/") or goal == ".":
        return
    for member, opened in names.items():
        if member == goal:
            yield name, opened
        elif member.startswith(f"{goal}/"):
            yield f"{name}{member[len(goal) :]}", opened
