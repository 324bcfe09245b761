"""The benchmark of starting: what it times are commands that work, and CPU time is that of the command."""

import sys

from leakgauge.benchmarks.studies import startup


def test_cpu_seconds_are_the_commands_own():
    idle = startup.cpu_seconds((sys.executable, "-S", "-c", "import time; time.sleep(.3)"))
    busy = startup.cpu_seconds((sys.executable, "-S", "-c", "sum(range(20_000_000))"))
    assert 0 <= idle < busy


def test_every_command_stands_as_a_ratio_to_the_reference_of_its_repetition(monkeypatch):
    said = iter([0, 0, 2.0, 1.0, 4.0, 1.0])  # a warm-up of each, then two repetitions
    monkeypatch.setattr(startup, "COMMANDS", {startup.REFERENCE: ("a",), "b": ("b",)})
    monkeypatch.setattr(startup, "cpu_seconds", lambda command: next(said))
    found = startup.ratios(2)
    assert found[startup.REFERENCE] == (2.0, (1.0, 1.0, 1.0))
    assert found["b"] == (1.0, (0.375, 0.25, 0.5))
