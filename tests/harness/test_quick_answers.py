"""What needs no model answers without importing the libraries that models need."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from leakgauge.harness.cli.reference.summaries import summary_of
from leakgauge.harness.suite.registry import GROUPS, load, plugins

HEAVY = ("torch", "numpy", "pandas", "scipy", "optuna", "transformers", "timm")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [(["--help"], 0, "Writes the report"), (["list"], 0, "set_decoder"), (["lst"], 2, "No such command")],
)
def test_nothing_heavy_is_imported(arguments, code, said):
    program = f"""
import sys
sys.argv = ["leakgauge", *{arguments!r}]
from leakgauge.harness.cli import main
try:
    main()
except SystemExit as end:
    code = end.code
print("imported", [name for name in {HEAVY!r} if name in sys.modules], "code", code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.splitlines()[-1] == f"imported [] code {code}"
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize("group", [group for group in (*GROUPS, "commands") if group != "suites"])
def test_what_is_read_from_the_source_is_what_the_plug_in_says(group):
    for name, point in plugins(group).items():
        told = (load(group, name).__doc__ or "").strip().partition("\n")[0]
        assert summary_of(group, point) == told
        assert told


def test_a_plug_in_without_source_is_imported_and_told_of_where_it_is_broken(monkeypatch):
    point = SimpleNamespace(name="nowhere", value="nowhere_at_all:Thing", load=lambda: __import__("nowhere_at_all"))
    monkeypatch.setattr("leakgauge.harness.suite.registry.plugins", lambda group: {"nowhere": point})
    assert summary_of("attacks", point).startswith("cannot be loaded: attack 'nowhere' cannot be imported")
