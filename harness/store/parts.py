"""Where each planned cell of a run stands: measured, failed, or to be measured yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from leakgauge.harness.errors import FailedCellsError, StoreError
from leakgauge.harness.store.cell_record import CellRecord, RebuiltRecord
from leakgauge.harness.store.code_digest import Code, differences
from leakgauge.harness.store.run_folder import ORIGINALS, RunFolder

Standing = Literal["done", "failed", "other code", "damaged", "missing"]
KEPT: tuple[Standing, ...] = ("done", "failed")
"""What the tables show."""


class Parts:
    """The parts of the planned cells in a run folder. Each is read once for every time that it is written.

    Args:
        store: The run folder.
        codes: Digest of the code that measures each planned cell, by the cell's key.
    """

    def __init__(self, store: RunFolder, codes: Mapping[str, str]) -> None:
        self._store, self._codes = store, codes
        self._known: dict[str, tuple[tuple[int, ...], Standing]] = {}
        self._pictured: set[str] = set()
        self._seen: dict[str, tuple[int, ...]] = {}

    def standing(self, key: str) -> Standing:
        """Tells where a cell stands."""
        stamp = self._store.stamp(key)
        if key not in self._known or self._known[key][0] != stamp:
            self._known[key] = stamp, self._look(key) if stamp else "missing"
        found = self._known[key][1]
        lost = found == "done" and key in self._pictured and not self._has_images(key)
        return "damaged" if lost else found

    def _has_images(self, key: str) -> bool:
        """Tells whether the pictures of a cell are there, and are those that were written; looks once a writing."""
        stamp = self._store.images_stamp(key)
        if stamp and self._seen.get(key) != stamp:
            try:
                task = self._store.manifest()["task"]
                _, height, width = task["image_shape"]
                self._store.read_images(key, task["evaluation_images"], height, width)
            except StoreError:
                return False
            self._seen[key] = stamp
        return bool(stamp)

    def _look(self, key: str) -> Standing:
        try:
            part = self._store.read_part(key)
        except StoreError:
            return "damaged"
        if part.head.code != self._codes[key]:
            return "other code"
        if part.status != "done":
            return "failed"
        if isinstance(part, RebuiltRecord):
            self._pictured.add(key)
        return "done"

    def all(self) -> dict[str, Standing]:
        """Returns where every planned cell stands, in the order of the plan."""
        return {key: self.standing(key) for key in self._codes}

    def counts(self) -> Counter[str]:
        """Returns how many cells stand where."""
        return Counter(self.all().values())

    def read(self) -> list[CellRecord]:
        """Returns the parts that the tables show, in the order of the plan."""
        return [self._store.read_part(key) for key, found in self.all().items() if found in KEPT]

    def read_one(self, key: str) -> CellRecord:
        """Returns the part of a cell, which must be there."""
        return self._store.read_part(key)

    def remarks(self, now: Mapping[str, Code], retry_failed: bool) -> list[str]:
        """Says which cells are in the folder already and are to be measured all the same, a line a cause.

        Args:
            now: The code that measures cells now, by its digest.
            retry_failed: Whether cells that failed are tried again.
        """
        counts, said = self.counts(), []
        if counts["other code"]:
            old = _joined(self._store.manifest().get("code") or {})
            where = differences(old, _joined(now)) if old else "which is not stated"
            said.append(f"{counts['other code']} cells were measured by other code and are measured again: {where}")
        if counts["damaged"]:
            said.append(f"{counts['damaged']} cells are damaged and are measured again")
        if counts["failed"]:
            what = "are tried again" if retry_failed else "stay as they are (--no-retry-failed)"
            said.append(f"{counts['failed']} cells failed before and {what}")
        return said

    def check_all_there(self) -> None:
        """Checks that every planned cell is in the folder: only then is a run complete.

        Raises:
            FailedCellsError: Some were not measured for lack of memory.
            StoreError: The folder or the code was changed while the run was going on.
        """
        standing, where = self.all(), str(self._store.path)
        absent = {key: found for key, found in standing.items() if found not in KEPT}
        short = self._store.shortages(absent)
        if absent and len(short) == len(absent):
            raise FailedCellsError(f"{len(absent)} of {len(standing)} cells were not measured: {short[0]}")
        gone = [f"{count} cells {found}" for found, count in Counter(absent.values()).items()]
        gone += [] if self._has_images(ORIGINALS) else ["the original images missing"]
        if gone:
            raise StoreError(
                f"of {len(standing)} cells there are {', '.join(gone)}: the folder or the code was changed while the "
                "run was going on",
                where=where,
                hint="run again to measure what is missing",
            )


def _joined(codes: Mapping[str, Code]) -> Code:
    return {name: number for code in codes.values() for name, number in code.items()}
