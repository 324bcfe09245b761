"""What commands end with: one table, from which errors, gate and documentation take their codes."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended. 1 belongs to ``gate`` alone: a build that it fails is worse than allowed."""

    DONE = 0
    WORSE = 1
    MISTAKE = 2
    CANNOT_TELL = 3
    CELLS_FAILED = 4
    FAULT = 70
    INTERRUPTED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.DONE: "done; of `gate`: pass",
    ExitCode.WORSE: "of `gate` alone: leaks more, costs more or is worse than allowed",
    ExitCode.MISTAKE: "not done: a fault of the command line, a suite, data, a plug-in or a folder; a line says which",
    ExitCode.CANNOT_TELL: "of `gate`: cannot tell",
    ExitCode.CELLS_FAILED: "a run ended, some of whose cells failed or could not be measured",
    ExitCode.FAULT: "a fault of leakgauge itself, or of a command that another package brought; please report it",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C; what was measured is kept",
}
