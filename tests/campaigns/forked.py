"""Commands in processes that are forked from one which has imported everything: a fault costs no start-up.

A forked child is the leader of a process group, which a kill by the clock hits as a whole. A kill by a file operation
is raised by the child itself, between two of its system calls: there a process that dies leaves most behind.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

LONGEST_S = 900
_leave = os._exit  # bound now: the harness replaces it while plug-ins run
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_ONLY_PATH = {"os.rename", "os.mkdir", "os.remove", "os.chmod", "os.utime", "os.listdir", "os.scandir"}

Act = Callable[[str], None]
"""What happens at a file operation; told the operation."""


class Operations:
    """Counts the file operations of this process below a folder, and acts at one of them.

    Args:
        folder: The folder.
        nth: The operation to act at, from 1; 0 for none.
        act: What to do; may raise, whereupon the operation fails so.
        again: Whether later operations that write are acted at too.
    """

    def __init__(self, folder: Path, nth: int, act: Act, *, again: bool = False) -> None:
        self._folder, self._nth, self._act, self._again = str(folder), nth, act, again
        self.count, self._busy = 0, False

    def arm(self) -> None:
        """Begins to count; for the life of the process."""
        sys.addaudithook(self._seen)

    def _seen(self, event: str, args: tuple[Any, ...]) -> None:
        if self._busy or (event != "open" and event not in _ONLY_PATH):
            return
        path = args[0]
        if not isinstance(path, str | os.PathLike) or self._folder not in os.fspath(path):
            return
        writes = event not in {"os.listdir", "os.scandir"}
        if event == "open":
            writes = bool(int(args[2] or 0) & _WRITING) or (isinstance(args[1], str) and args[1][:1] in "wax")
            if not writes:
                return
        self.count += 1
        if self._nth and (self.count == self._nth or (self._again and writes and self.count > self._nth)):
            self._busy = True
            try:
                self._act(event)
            finally:
                self._busy = False


def killing(sign: signal.Signals) -> Act:
    """Ends this process by a signal."""
    return lambda event: os.kill(os.getpid(), sign)


def full(event: str) -> None:
    """Refuses what needs room."""
    if event in {"open", "os.mkdir"}:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Running:
    """A command at work in a child.

    Args:
        arguments: What would stand after ``leakgauge``.
        output: Where stdout and stderr go.
        environment: Variables of the child.
        operations: What happens at its file operations; their number is written beside the output.
    """

    def __init__(
        self, arguments: list[str], output: Path, environment: dict[str, str], operations: Operations | None = None
    ) -> None:
        self.arguments, self.output = arguments, output
        self.code: int | None = None
        self.cpu_s = 0.0
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._child(environment, operations)
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(self.pid, self.pid)

    def _child(self, environment: dict[str, str], operations: Operations | None) -> None:
        code = 99
        try:
            with suppress(PermissionError):
                os.setpgid(0, 0)
            for sign, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
                signal.signal(sign, handler)
            handle = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for number in (1, 2):
                os.dup2(handle, number)
            os.environ.update(environment)
            sys.argv = ["leakgauge", *self.arguments]
            if operations is not None:
                operations.arm()
            from leakgauge.harness.cli import main

            main()
        except SystemExit as end:
            code = int(end.code or 0)
        except KeyboardInterrupt:
            code = -signal.SIGINT
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
            if operations is not None:
                operations._busy = True
                with suppress(OSError):
                    self.output.with_suffix(".operations").write_text(f"{operations.count} {' '.join(sys.modules)}")
            if code == -signal.SIGINT:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGINT)
            _leave(code)

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal; None while it is at work."""
        if self.code is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.code, self.cpu_s = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
                self.signal(signal.SIGKILL)  # whatever it left at work
        return self.code

    def wait(self, longest_s: float = LONGEST_S) -> int:
        """Waits for its end; what takes too long is killed and ends with -9."""
        end = time.monotonic() + longest_s
        while self.poll() is None:
            if time.monotonic() > end:
                self.signal(signal.SIGKILL)
            time.sleep(0.003)
        assert self.code is not None
        return self.code

    def signal(self, sign: signal.Signals) -> None:
        """Sends a signal to its process group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, sign)

    def text(self) -> str:
        """Returns what it printed."""
        return self.output.read_text(encoding="utf-8", errors="replace") if self.output.is_file() else ""

    def counted(self) -> tuple[int, list[str]]:
        """Returns how many file operations were counted, and the modules that were imported."""
        count, *modules = self.output.with_suffix(".operations").read_text().split(" ")
        return int(count), modules

    def cpu_now(self) -> float:
        """Returns the CPU seconds used so far: moments drawn in them do not depend on what else the machine does."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
