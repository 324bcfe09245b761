"""Shows where a run stands: on a terminal a bar and a line for each process, elsewhere lines, one a minute at least."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from leakgauge.harness.run.expected_time import Timed, clock, expected
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.planning import Cell
from leakgauge.harness.system.plain_text import plain, shortened
from leakgauge.harness.system.standing import Standing, standings

LOOK_S = 1.0
LINE_S = 60.0
LONGEST = 100


class Watch:
    """Watches a run, from a thread of its own: while an attack trains, the process that prints is busy itself.

    Args:
        cells: The planned cells.
        folder: The run folder.
        told: Where every process tells what it is at (``leakgauge.harness.system.standing``).
        workers: Processes.
        out: Where to show it.
        line_s: Seconds between lines where there is no terminal.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        folder: Path,
        told: Path | None,
        workers: int,
        out: Console,
        *,
        line_s: float = LINE_S,
    ) -> None:
        self._cells, self._told, self._workers, self._out, self._line_s = cells, told, workers, out, line_s
        self._store = RunFolder(folder)
        self._timed = Timed(self._store, cells)
        self._before = self._timed.stamps()
        self._begun = self._printed = time.monotonic()
        self._done = self._shown = -1
        self._finished = threading.Event()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[left]}"), console=out, transient=True)
        self._task = self._bar.add_task("cells", total=len(cells), left="")
        self._lines: list[TaskID] = []
        self._thread = threading.Thread(target=self._look, name="leakgauge watch", daemon=True)

    def __enter__(self) -> Self:
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finished.set()
        self._thread.join()
        self._bar.stop()

    def progress(self, done: int, total: int) -> None:
        """Takes how many cells are measured; where the bar cannot move every one of them is a line."""
        if self._done < 0:  # what earlier sessions measured is no news
            self._shown = done
        self._done = done
        self._bar.update(self._task, completed=done, total=total)
        if done > self._shown and not self._out.is_terminal:
            self._say(f"{done} of {total} cells after {clock(time.monotonic() - self._begun)}")
        self._shown = max(done, self._shown)

    def _say(self, line: str) -> None:
        self._printed = time.monotonic()
        self._out.print(line, highlight=False, markup=False, soft_wrap=True)

    def _look(self) -> None:
        while not self._finished.wait(min(LOOK_S, self._line_s)):
            if self._out.is_terminal:
                self._show_processes(standings(self._told))
                self._bar.update(self._task, left=self.left())
            elif self._done >= 0 and time.monotonic() - self._printed >= self._line_s:
                at = clock(time.monotonic() - self._begun)
                told = "; ".join(self._words(one) for one in standings(self._told)) or "nothing told"
                self._say(f"at {at}: {self._done} of {len(self._cells)} cells; {told}; {self.left()}")

    def _show_processes(self, found: list[Standing]) -> None:
        while len(self._lines) < len(found):
            self._lines.append(self._bar.add_task("", total=None, left=""))
        for place, line in enumerate(self._lines):
            self._bar.update(line, visible=place < len(found))
        for line, one in zip(self._lines, found, strict=False):
            steps = {"total": one.steps, "completed": one.step} if one.steps else {"total": None}
            words = "" if one.heldout_psnr_db is None else f"{one.heldout_psnr_db:.1f} dB held out"
            self._bar.update(line, description=shortened(plain(one.doing, keep=""), 40), left=words, **steps)

    @staticmethod
    def _words(one: Standing) -> str:
        return shortened(plain(str(one), keep=""), LONGEST)

    def left(self) -> str:
        """Says how long the cells that are left will take, or why that is not known."""
        missing = [cell for cell in self._cells if not self._store.stamp(cell.key)]
        timed = self._timed.by_attack()
        # A cell takes longer than its attack: there is the operating point to measure, and a reconstruction to score.
        fresh = self._timed.fresh(self._before)
        running = sum(max(0.0, time.time() - one.since) for one in standings(self._told))
        busy = (time.monotonic() - self._begun) * self._workers
        factor = max(1.0, busy / (fresh + running)) if fresh else 1.0
        return expected(missing, timed).told(self._workers, factor)
