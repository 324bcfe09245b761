"""Where the campaign works: the smallest task, its suite and space, and what an undisturbed command leaves behind."""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import random
import shutil
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
for _folder in (ROOT / "tests", ROOT):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from forked import Operations, Running  # noqa: E402

TIMES = ["latency_ms", "attack_seconds"]
COMMANDS = ("run", "search", "report", "score")
SUITE = {
    "name": "faults",
    "task": "toy",
    "defense": {"name": "split_pipeline", "cut": 1},
    "operating_points": [{"name": "undefended"}, {"name": "merged", "reduction": {"name": "tome", "r": 4}}],
    "threat_models": [{"name": "server", "auxiliary": {"n": 24}}],
    "attacks": ["floor_mean", "ridge"],
    "metrics": ["psnr_db"],
    "judge": "victim",
    "evaluation_images": 8,
}
SPACE = {
    "name": "faults",
    "task": "toy",
    "defense": {"name": "split_pipeline", "cut": 1},
    "calibration": {"images": 8},
    "search_images": 4,
    "objectives": ["quality", "gflops_total", "payload_bytes"],
    "reference": {"quality": 0.0},
    "sampler": "random",
    "trials": 5,
    "baselines": [{"name": "tome", "reduction": {"name": "tome", "r": 4}}],
}
Left = dict[str, Any]
"""What a command left behind, by name."""


class World:
    """The folder of the campaign.

    Args:
        folder: An empty folder.
        seed: Seed of all that is drawn.
        commands: The commands that are tried.
        twice: Whether each is run undisturbed twice, so that what children import late is imported here.
    """

    def __init__(
        self, folder: Path, seed: int = 0, commands: tuple[str, ...] = COMMANDS, *, twice: bool = True
    ) -> None:
        self.folder, self.random, self._count = folder.resolve(), random.Random(seed), 0
        self.suite, self.space = self.folder / "suite.yaml", self.folder / "space.yaml"
        self.suite.write_text(json.dumps(SUITE))
        self.space.write_text(json.dumps(SPACE))
        self._register()
        self._import()
        self.cpu_s: dict[str, float] = {}
        self.operations: dict[str, int] = {}
        self.expected: dict[str, Left] = {}
        self.finished: dict[str, Path] = {}
        self.run = self.folder / "undisturbed-run"
        self._twice = twice
        for name in commands:
            self._undisturbed(name)
        gc.freeze()

    def _register(self) -> None:
        """Registers the task as a third party does, so that worker processes find it too."""
        os.environ |= {"LEAKGAUGE_CACHE": "off", "OMP_NUM_THREADS": "1", "LEAKGAUGE_SEARCH_GRACE_S": "3"}
        from toy_task import install  # only now: it imports torch, which reads how many threads there are to be

        plugins = self.folder / "plugins"
        os.environ["PYTHONPATH"] = install(plugins)
        sys.path.insert(0, str(plugins))
        importlib.invalidate_caches()

    def _import(self) -> None:
        """Imports once what every child needs."""
        import torch
        import toy_task

        import leakgauge.harness.cli
        from leakgauge.harness.run.plan import prepare
        from leakgauge.harness.store import provenance
        from leakgauge.harness.store.code_digest import code_digest
        from leakgauge.harness.suite.registry import load, plugins
        from leakgauge.harness.suite.schema import load_suite

        toy_task.model(4)
        # Drawing is tried with reports; searches would spend half of their time on it.
        plugins("search_figures").clear()
        built = ("defenses", "reductions", "attacks", "codecs", "channels")
        for group in ("reports", "search_figures", "commands", *built):
            for name in plugins(group):
                with suppress(Exception):
                    load(group, name)
        # What is the same for all of them is found out once: digests of the code, versions of what is installed.
        code_digest()
        _ = prepare(load_suite(str(self.suite)), torch.device("cpu")).codes
        provenance.installed_versions = cache(provenance.installed_versions)
        provenance.package_versions = cache(provenance.package_versions)
        assert Path(leakgauge.harness.cli.__file__).resolve().is_relative_to(ROOT / "harness"), (
            f"{leakgauge.harness.cli.__file__} is other code"
        )

    def fresh(self, name: str) -> Path:
        """Returns a new folder for one fault."""
        self._count += 1
        path = self.folder / f"{self._count:04d}-{name}"
        path.mkdir()
        return path

    def arguments(self, command: str, out: Path, run: Path | None = None) -> list[str]:
        """Returns a command that writes into ``out``; ``run`` is what a report is of."""
        return {
            "run": ["run", str(self.suite), "--out", str(out), "--device", "cpu", "--workers", "1"],
            "search": ["search", str(self.space), "--out", str(out), "--device", "cpu"],
            "report": ["report", str(run or self.run), "--out", str(out)],
            "score": ["score", str(out), "--device", "cpu"],
        }[command]

    def start(
        self,
        arguments: list[str],
        place: Path,
        operations: Operations | None = None,
        *,
        cache: Path | None = None,
        name: str = "output",
    ) -> Running:
        """Starts a command whose output and token cache lie in ``place``."""
        variables = {"LEAKGAUGE_CACHE": str(cache or place / "cache"), "TMPDIR": str(self.folder)}
        self._count += 1
        return Running(arguments, place / f"{name}-{self._count}.txt", variables, operations)

    def prepared(self, command: str, place: Path) -> Path:
        """Returns the folder that a command writes into, with what must be there before it."""
        out = place / "out"
        if command == "score":
            copy_run(self.run, out)
        return out

    def left(self, command: str, out: Path) -> Left:
        """Returns what a command left in ``out``."""
        return {"run": run_left, "score": run_left, "search": search_left, "report": report_left}[command](out)

    def _undisturbed(self, command: str) -> None:
        place = self.fresh(f"undisturbed-{command}")
        out = self.run if command == "run" else self.prepared(command, place)
        for last in (False, True) if self._twice else (True,):
            operations = Operations(out, 0, lambda event: None)
            ended = self.start(self.arguments(command, out), place, operations)
            assert ended.wait() == 0, f"undisturbed {command} failed: {ended.text()}"
            self.operations[command], modules = ended.counted()
            if last:
                self.expected[command] = self.left(command, out)
                self.cpu_s[command], self.finished[command] = ended.cpu_s, out
                break
            # What a child imports late, the others find imported.
            for name in modules:
                with suppress(BaseException):
                    importlib.import_module(name)
            shutil.rmtree(out)
            out = self.run if command == "run" else self.prepared(command, place)

    def wrong_after(self, command: str, place: Path, out: Path, **how: Any) -> list[str]:
        """Runs a command again after a fault; returns what is not as after an undisturbed one."""
        again = self.start(self.arguments(command, out), place, name="again", **how)
        code = again.wait()
        if code:
            return [f"run again, it ends with {code}: {last_line(again.text())}"]
        return self.wrong_left(command, out)

    def wrong_left(self, command: str, out: Path) -> list[str]:
        """Returns what in ``out`` is not as after an undisturbed command."""
        try:
            return differences(self.expected[command], self.left(command, out))
        except Exception as error:  # whatever cannot be read is wrong
            return [f"{type(error).__name__}: {str(error)[:300]}"]


def copy_run(run: Path, out: Path) -> None:
    """Copies a run folder, but for its lock."""
    shutil.copytree(run, out, ignore=shutil.ignore_patterns(".lock"))


def last_line(text: str) -> str:
    """Returns the last line that was printed."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing printed"


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _stale(out: Path) -> list[str]:
    return [path.name for path in out.rglob(".*.????????") if path.is_file()]


def run_left(out: Path) -> Left:
    """Returns the status, the rows and the pictures of a run, times aside."""
    from leakgauge.harness.store.run_folder import RunFolder

    store = RunFolder(out)
    manifest = store.manifest()
    return {
        "status": manifest["status"],
        "cells planned": manifest["cells"],
        "cells.csv": store.cells().drop(columns=TIMES),
        "images.parquet": store.images().drop(columns=TIMES, errors="ignore"),
        "parts": sorted(path.name for path in (out / "parts").iterdir()),
        "pictures": {path.name: _hash(path) for path in sorted((out / "reconstructions").iterdir())},
        "half-written files": _stale(out),
    }


def search_left(out: Path) -> Left:
    """Returns the trials and the front of a search, times aside.

    So are the numbers of trials, by which points of the front are named: a trial that was killed keeps its number, and
    what it tried is tried again under the next.
    """
    import pandas as pd

    trials = pd.read_csv(out / "trials.csv")
    front = json.loads((out / "front.json").read_text())
    for point in (*front["points"], *front["operating_points"]):
        point.pop("trial", None)
        point.pop("name")
    return {
        "trials.csv": trials.drop(columns=["trial", "front_point", *TIMES], errors="ignore"),
        "front.csv": pd.read_csv(out / "front.csv").drop(columns=["trial", "front_point", *TIMES], errors="ignore"),
        "hypervolume.csv": pd.read_csv(out / "hypervolume.csv"),
        "front.json": front,
        "failed trials": (out / "failed_trials.csv").exists(),
        "half-written files": _stale(out),
    }


def report_left(out: Path) -> Left:
    """Returns the files of a report, byte for byte."""
    paths = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(out)): _hash(path) for path in paths}


def differences(expected: Left, found: Left) -> list[str]:
    """Says in what two things left behind differ."""
    wrong = []
    for name in sorted({*expected, *found}):
        if name not in expected or name not in found:
            wrong.append(f"{name} is {'missing' if name in expected else 'too much'}")
            continue
        old, new = expected[name], found[name]
        if hasattr(old, "columns"):
            if not old.equals(new):
                wrong.append(f"{name} differs: {_columns(old, new)}")
        elif old != new:
            wrong.append(f"{name}: {str(new)[:200]} instead of {str(old)[:200]}")
    return wrong


def _columns(old: Any, new: Any) -> str:
    if len(old) != len(new) or list(old.columns) != list(new.columns):
        return f"{len(new)} rows instead of {len(old)}"
    return ", ".join(name for name in old.columns if not old[name].equals(new[name]))
