"""How long a run will yet take, as far as cells that were measured tell: by attack, or not at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean

from leakgauge.harness.errors import StoreError
from leakgauge.harness.store.cell_record import MeasuredRecord
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.planning import Cell


@dataclass(frozen=True)
class Expected:
    """What is left of a run.

    Args:
        cells: Cells to be measured yet.
        untimed: Those of them whose attack was never timed.
        seconds: What the attacks of the others take on one worker.
        attacks: Mean seconds of each attack that was timed, by label.
    """

    cells: int
    untimed: int
    seconds: float
    attacks: Mapping[str, float]

    def told(self, workers: int, factor: float = 1.0) -> str:
        """Says it in a few words; ``factor`` is how much longer a cell takes than its attack.

        Attacks differ by orders of magnitude: an estimate that leaves out those that were not timed would be wrong.
        """
        if not self.cells:
            return "nothing left to measure"
        if self.untimed:
            return "time left: not known yet"
        return f"about {clock(self.seconds * factor / workers)} left"


def clock(seconds: float) -> str:
    """Writes a time as ``3:05`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def expected(left: Sequence[Cell], timed: Mapping[str, Sequence[float]]) -> Expected:
    """Returns what is left: ``timed`` are seconds of finished cells by the label of their attack."""
    means = {label: fmean(seconds) for label, seconds in timed.items() if seconds}
    known = [means[cell.attack.label] for cell in left if cell.attack.label in means]
    return Expected(len(left), len(left) - len(known), sum(known), means)


class Timed:
    """Seconds of the attacks of finished cells in a run folder; every part is read once for every time it is written.

    Args:
        store: The run folder.
        cells: The planned cells.
    """

    def __init__(self, store: RunFolder, cells: Iterable[Cell]) -> None:
        self._store, self._cells = store, list(cells)
        self._seen: dict[str, tuple[tuple[int, ...], float | None]] = {}

    def _seconds(self, key: str) -> float | None:
        stamp = self._store.stamp(key)
        if not stamp:
            return None
        if self._seen.get(key, ((), None))[0] != stamp:
            seconds = None
            with suppress(StoreError):
                part = self._store.read_part(key)
                seconds = part.attack_seconds if isinstance(part, MeasuredRecord) else None
            self._seen[key] = stamp, seconds
        return self._seen[key][1]

    def fresh(self, before: Mapping[str, tuple[int, ...]]) -> float:
        """Returns the seconds of all cells that were finished since ``before``, which ``stamps`` gave."""
        now = self.stamps()
        found = (self._seconds(key) for key, stamp in now.items() if before.get(key) != stamp)
        return sum(seconds for seconds in found if seconds is not None)

    def stamps(self) -> dict[str, tuple[int, ...]]:
        """Returns what tells one writing of a cell's part from the next, of those that are there."""
        stamps = {cell.key: self._store.stamp(cell.key) for cell in self._cells}
        return {key: stamp for key, stamp in stamps.items() if stamp}

    def by_attack(self) -> dict[str, list[float]]:
        """Returns the seconds of finished cells by the label of their attack."""
        found = defaultdict[str, list[float]](list)
        for cell in self._cells:
            seconds = self._seconds(cell.key)
            if seconds is not None:
                found[cell.attack.label].append(seconds)
        return dict(found)
