"""Progress where nobody asked for any: a bar in a notebook, nothing elsewhere."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any


def in_notebook() -> bool:
    """Tells whether this process is the kernel of a notebook."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


class Bar:
    """Shows how much is done, of cells or trials: IPython's own bar in a notebook, nothing elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        """Takes how many are done, and how many there are."""
        if not in_notebook():
            return
        if self._bar is None:
            display: Any = import_module("IPython.display")
            self._bar = display.ProgressBar(max(total, 1))
            self._bar.display()
        if done != self._bar.progress:
            self._bar.progress = done
