"""Plants every fault of the list, one at a time, in a copy of the repository, and runs the test that must catch it.

``make planted``; ``python tests/planted/run.py --only gate`` for some. Exit code 0 where every named test passes on the
clean code and fails on its fault, else 1.

A process a fault, forked from one that has imported the libraries and nothing of the repository: so that nothing is
left over from one fault to the next, and torch is imported once. Every process at work has a copy of its own.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from faults import ROOT, Fault, read_faults

LEFT_OUT = (".git", ".venv*", "runs", "build", "dist", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info")
LIBRARIES = (
    "PIL.Image",
    "_pytest.assertion.rewrite",
    "constriction",
    "hypothesis.strategies",
    "jinja2",
    "lpips",
    "matplotlib.figure",
    "numpy",
    "optuna",
    "platformdirs",
    "pandas",
    "pyarrow.parquet",
    "pydantic",
    "pytest",
    "rich",
    "safetensors.torch",
    "scipy.stats",
    "skimage.metrics",
    "sklearn",
    "threadpoolctl",
    "timm",
    "torch",
    "torchmetrics",
    "torchmetrics.functional.image",
    "torchvision",
    "transformers",
    "typer",
    "xdist",
    "yaml",
)
FOLDERS = ("harness", "attacks", "defenses", "benchmarks", "reports")
FAILED, ELSEWHERE = 1, 97
CAUGHT, CLEAN = "caught", "passes clean"


@dataclass
class Job:
    """Tests to run in one process: those of one file on the clean code, or the one that must catch ``fault``."""

    tests: list[str]
    fault: Fault | None = None
    copy: Path = field(default_factory=Path)
    started: float = 0.0
    seconds: float = 0.0
    result: str = ""
    output: Path = field(default_factory=Path)

    @property
    def expected(self) -> str:
        return CLEAN if self.fault is None else CAUGHT


def copy_tree(target: Path) -> None:
    """Copies the repository, registers its plug-ins there, and compiles it so that a changed file is compiled anew."""
    shutil.copytree(ROOT, target, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    # By hash: a fault of the same length within the same second would otherwise be taken for the clean file.
    compiling = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "leakgauge", *FOLDERS]
    for command in (["-c", "from setuptools import setup; setup()", "-q", "egg_info"], compiling):
        subprocess.run([sys.executable, *command], cwd=target, check=True, stdout=subprocess.DEVNULL)


def in_child(job: Job) -> int:
    """Runs the tests of a job with all that is imported from its copy; returns pytest's exit code."""
    os.setpgrp()
    os.chdir(job.copy)
    os.environ |= {"PYTHONPATH": str(job.copy), "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ["LEAKGAUGE_CACHE"] = "off"
    sys.dont_write_bytecode = True
    sys.path[:] = [
        str(job.copy),
        *(p for p in sys.path if p and Path(p).resolve() not in {ROOT, ROOT / "tests/planted"}),
    ]
    out = os.open(job.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    import pytest

    unneeded = (word for name in ("cacheprovider", "xdist", "anyio") for word in ("-p", f"no:{name}"))
    code = int(pytest.main(["-x", "-q", "--hypothesis-seed=0", *unneeded, *job.tests]))
    ours = (sys.modules.get(f"leakgauge.{name}") for name in FOLDERS)
    homes = {Path(str(module.__file__)).parents[2] for module in ours if module}
    return code if homes <= {job.copy} else ELSEWHERE


def start(job: Job) -> int:
    """Forks; returns the process number."""
    job.started = time.monotonic()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = ELSEWHERE
    try:
        code = in_child(job)
    except BaseException as error:  # must never return into the parent's loop
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        sys.stdout.flush()
        os._exit(code)


def judged(job: Job, code: int) -> str:
    """Says what the exit code of a job means."""
    if code == 0:
        return CLEAN if job.fault is None else "NOT caught"
    if code == FAILED:
        return "FAILS on clean code" if job.fault is None else CAUGHT
    return {-signal.SIGKILL: "TIMEOUT", ELSEWHERE: "ran OTHER code"}.get(code, f"pytest ended with {code}")


def run(jobs: Iterable[Job], copies: list[Path], timeout: float) -> list[Job]:
    """Runs jobs, as many at a time as there are copies; each leaves its copy as it was."""
    waiting, running, done = deque(jobs), dict[int, Job](), list[Job]()
    free = list(copies)
    while waiting or running:
        while waiting and free:
            job = waiting.popleft()
            job.copy = free.pop()
            job.output = job.copy.with_suffix(f".{len(done) + len(running)}")
            if job.fault:
                (job.copy / job.fault.file).write_text(job.fault.planted(ROOT), encoding="utf-8")
            running[start(job)] = job
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            for late in [p for p, job in running.items() if time.monotonic() - job.started > timeout]:
                with suppress(ProcessLookupError):
                    os.killpg(late, signal.SIGKILL)
            time.sleep(0.02)
            continue
        if pid not in running:
            continue
        job = running.pop(pid)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        job.seconds, job.result = time.monotonic() - job.started, judged(job, os.waitstatus_to_exitcode(status))
        if job.fault:
            shutil.copyfile(ROOT / job.fault.file, job.copy / job.fault.file)
        free.append(job.copy)
        done.append(job)
        shown = job.fault.name if job.fault else job.tests[0].partition("::")[0]
        print(f"{job.result:12}  {job.seconds:5.1f} s  {shown}", flush=True)
        if job.result != job.expected:
            print("    " + "\n    ".join(job.output.read_text(errors="replace").splitlines()[-25:]), flush=True)
    return done


def clean_jobs(faults: list[Fault]) -> list[Job]:
    """Returns a job a test file, with all tests of it that faults name."""
    files: dict[str, dict[str, None]] = {}
    for fault in faults:
        files.setdefault(fault.test.partition("::")[0], {})[fault.test] = None
    return [Job(list(tests)) for tests in files.values()]


def table(faults: list[Fault], stale: dict[str, str], done: list[Job]) -> str:
    """Returns a line a fault: result, seconds, area, name, test."""
    jobs = {job.fault.name: job for job in done if job.fault}
    lines = []
    for fault in faults:
        job = jobs.get(fault.name)
        result = "STALE" if fault.name in stale else "not run" if job is None else job.result
        seconds = 0.0 if job is None else job.seconds
        lines.append(f"{result:12} {seconds:5.1f} s  {fault.area:10}  {fault.name}  [{fault.test}]")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="faults whose area, name, file or test holds this text")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds a fault")
    parser.add_argument("--no-clean", action="store_true", help="do not run the tests on the clean code first")
    args = parser.parse_args()
    chosen = [f for f in read_faults() if args.only in f"{f.area} {f.name} {f.file} {f.test}"]
    stale = {fault.name: why for fault in chosen if (why := fault.stale(ROOT))}
    for name, why in stale.items():
        print(f"STALE  {name}: {why}", flush=True)
    able, begun = [fault for fault in chosen if fault.name not in stale], time.monotonic()
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    assert "leakgauge" not in sys.modules, "the repository itself must not be imported before the fork"
    gc.freeze()  # else every process walks through all objects of the libraries, and copies their memory
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        place = Path(folder).resolve()
        copies = [place / f"copy-{i}" for i in range(max(1, args.jobs))]
        copy_tree(copies[0])
        for copy in copies[1:]:
            shutil.copytree(copies[0], copy, symlinks=True)
        jobs = [] if args.no_clean else clean_jobs(able)
        done = run([*jobs, *(Job([fault.test], fault) for fault in able)], copies, args.timeout)
    print(f"\n{table(chosen, stale, done)}")
    wrong = len(stale) + sum(job.result != job.expected for job in done)
    caught = sum(job.result == CAUGHT for job in done if job.fault)
    print(f"\n{caught} of {len(chosen)} faults caught in {time.monotonic() - begun:.0f} s; {wrong} things wrong")
    return 1 if wrong or not chosen else 0


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    os._exit(ended)  # some libraries complain at length when they are unloaded
