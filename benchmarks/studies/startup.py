"""How long a user waits before anything is computed: ``python -m leakgauge.benchmarks.studies.startup``.

Every command is a fresh process; its time is the CPU time of that process and stands as a ratio to ``import torch``,
which takes its turn in each repetition.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from leakgauge.benchmarks.studies.command_line import start
from leakgauge.benchmarks.studies.speed.timing import Ratio

PYTHON = (sys.executable, "-P")
CLI = (*PYTHON, "-m", "leakgauge.harness.cli")
REFERENCE = "import torch"
COMMANDS = {
    REFERENCE: (*PYTHON, "-c", "import torch"),
    "import leakgauge": (*PYTHON, "-c", "import leakgauge"),
    "--version": (*CLI, "--version"),
    "--help": (*CLI, "--help"),
    "a typing error": (*CLI, "rnu"),
    "list": (*CLI, "list"),
    "show attack ridge": (*CLI, "show", "attack", "ridge"),
}


def cpu_seconds(command: tuple[str, ...]) -> float:
    """Returns the CPU seconds, user and system, of a process from its start to its end."""
    before = os.times()
    subprocess.run(command, check=False, capture_output=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def ratios(repetitions: int) -> dict[str, tuple[float, Ratio]]:
    """Times every command once in each repetition.

    Returns:
        By command the fewest CPU seconds, and their ratio to ``import torch`` of the same repetition.
    """
    for command in COMMANDS.values():
        cpu_seconds(command)  # what is read for the first time comes from the disk
    rounds = [{name: cpu_seconds(command) for name, command in COMMANDS.items()} for _ in range(repetitions)]
    return {
        name: (min(seconds[name] for seconds in rounds), Ratio.of([one[name] / one[REFERENCE] for one in rounds]))
        for name in COMMANDS
    }


def main(repetitions: Annotated[int, typer.Option(min=1)] = 5) -> None:
    """Prints a Markdown table."""
    print(f"| command | CPU seconds, fewest of {repetitions} | to `import torch` (range) |")
    print("| --- | ---: | ---: |")
    for name, (seconds, ratio) in ratios(repetitions).items():
        print(f"| `{name}` | {seconds:.2f} | {ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f}) |")


if __name__ == "__main__":
    start(main)
