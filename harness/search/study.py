"""Runs a search: in this process or in several, on one database; what was killed is resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.pruners import NopPruner, SuccessiveHalvingPruner
from optuna.study import Study
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from leakgauge.harness.errors import PluginError, StoreError
from leakgauge.harness.run.executors import POLL_S, one_thread, run_jobs
from leakgauge.harness.search.objectives import Objectives
from leakgauge.harness.search.sampling.samplers import make_sampler, quiet
from leakgauge.harness.search.sampling.schedule import TrialSchedule
from leakgauge.harness.search.space import Space
from leakgauge.harness.search.space_options import check_space
from leakgauge.harness.search.trials.evaluation import Evaluator
from leakgauge.harness.search.trials.memo import Memo
from leakgauge.harness.search.trials.storage import DATABASE, Reclaimer, join_study, sqlite_url
from leakgauge.harness.search.trials.trials import TrialFailedError, has_ended, run_trial
from leakgauge.harness.store.code_digest import code_digest
from leakgauge.harness.store.provenance import collect
from leakgauge.harness.suite.planning import content_hash
from leakgauge.harness.suite.registry import default_of
from leakgauge.harness.suite.text_source import naming_lines
from leakgauge.harness.system.files.atomic_file import write_atomic
from leakgauge.harness.system.files.bounded_file import MIB, read_json
from leakgauge.harness.system.files.locking import exclusive

Progress = Callable[[int, int], None]
"""Called with (trials done, trials in all)."""


@dataclass(frozen=True)
class Prepared:
    """A checked search.

    Args:
        space: The space.
        evaluator: What measures its points.
        schedule: Its dimensions.
        objectives: Its objectives and reference point.
        undefended: Metrics of the undefended operating point on the search images.
        key: Content hash of all that decides the trials.
    """

    space: Space
    evaluator: Evaluator
    schedule: TrialSchedule
    objectives: Objectives
    undefended: dict[str, float]
    key: str

    @property
    def study_name(self) -> str:
        """Names the study in its database."""
        return f"{self.space.name}-{self.key}"


def prepare_search(space: Space, device: torch.device, memo: Memo) -> Prepared:
    """Loads the task, measures the undefended point, and checks all that can be checked before the first trial.

    Raises:
        LeakgaugeError: What is wrong: with its plug-ins and options all of it, else the first thing.
    """
    quiet()
    with naming_lines(space.source), one_thread():
        check_space(space)
        evaluator = Evaluator(space, device, memo)
        schedule = TrialSchedule(space, evaluator.cut)
        make_sampler(space, schedule)
        undefended = evaluator.measure({"reduction": default_of("reductions")}, space.channels[0])
    shown = {"name", "description", "trials", "baselines", "remeasure", "reference"}
    key = content_hash({"space": space.model_dump(mode="json", exclude=shown), "data": evaluator.data})
    return Prepared(space, evaluator, schedule, Objectives(space, undefended), undefended, key)


def run_search(
    prepared: Prepared, out: Path, device: torch.device, workers: int, storage: str | None, progress: Progress
) -> Study:
    """Runs what is missing of a search until its trials are done.

    Args:
        prepared: The search.
        out: Output folder, which no other search may use at the same time.
        device: Where to compute.
        workers: Local processes.
        storage: Address of a shared database, or None for a file in ``out``. Searches of one space on one database,
            from several machines too, share their trials; each goes on until all are done.
        progress: Called after every trial.

    Raises:
        LeakgaugeError: The folder or the database cannot be used, or memory or disk ran out. A trial that fails keeps
            its reason, and the search goes on.
    """
    with exclusive(out):
        _claim(prepared, out, device, workers, storage)
        url = sqlite_url(out) if storage is None else storage
        before: tuple[int, int] | None = None
        try:
            study = join_study(url, prepared.study_name, prepared.objectives, alone=storage is None)
            before = _same_file(out / DATABASE) if storage is None else None
            if workers == 1:
                with one_thread():
                    _work(study, prepared, progress)
            else:
                _work_together(study, prepared, out, device, workers, url, progress)
        except Exception as error:
            failed = _of_the_database(error)
            if failed is not None:
                what = f"the database failed: {type(failed).__name__}"
                raise StoreError(what, where="--storage", hint="run again to resume") from error
            # What Optuna makes of a file that vanishes under it depends on where it just was.
            if before is None or _same_file(out / DATABASE) == before:
                raise
            raise StoreError(
                "its trials were taken away while it was searching",
                where=str(out / DATABASE),
                hint="run it again: what was measured need not be measured again if `measured` is still there",
            ) from error
        return study


def _of_the_database(error: BaseException | None) -> BaseException | None:
    """Returns the failure of the database that led to an error: Optuna may hide it behind an assertion."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, SQLAlchemyError | StorageInternalError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _same_file(path: Path) -> tuple[int, int] | None:
    """Returns what tells a file from another of its name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _claim(prepared: Prepared, out: Path, device: torch.device, workers: int, storage: str | None) -> None:
    """Writes study.json, or checks that the folder holds this very search."""
    path = out / "study.json"
    if path.is_file():
        try:
            key = read_json(path, 64 * MIB, hint="restore or delete it", unscored=True)["key"]
        except (StoreError, KeyError, TypeError) as error:
            raise StoreError("study.json cannot be read", where=str(path), hint="restore or delete it") from error
        if key != prepared.key:
            raise StoreError(
                "the folder holds a search of another space, data or seed",
                where=str(out),
                hint="choose another --out, or delete the folder",
            )
    space, evaluator = prepared.space, prepared.evaluator
    data: dict[str, Any] = {
        "schema_version": 1,
        "key": prepared.key,
        "study_name": prepared.study_name,
        "storage": DATABASE if storage is None else "shared",
        "space": space.model_dump(mode="json"),
        "data": evaluator.data,
        "calibration_ids": list(evaluator.calibration.ids),
        "search_images": len(evaluator.images),
        "quality_base": evaluator.quality_base,
        "undefended": prepared.undefended,
        "reference": prepared.objectives.reference,
        "workers": workers,
        "provenance": {**collect(device, code_digest()), "optuna": optuna.__version__},
    }
    write_atomic(path, (json.dumps(data, indent=2, sort_keys=True) + "\n").encode())


def _work(study: Study, prepared: Prepared, progress: Progress) -> None:
    """Runs trials until all are done; waits for those of other workers, and takes them over where they died."""
    wanted, reclaim = prepared.space.trials, Reclaimer()
    study.sampler = make_sampler(prepared.space, prepared.schedule, prepared.objectives)
    study.pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=2) if prepared.space.rungs else NopPruner()
    while True:
        trials = study.get_trials(deepcopy=False)
        states, done = [trial.state for trial in trials], sum(map(has_ended, trials))
        progress(min(done, wanted), wanted)
        if done >= wanted:
            return
        if done + states.count(TrialState.RUNNING) >= wanted and TrialState.WAITING not in states:
            time.sleep(POLL_S)
            reclaim(study)
            continue
        try:
            study.optimize(
                lambda trial: run_trial(trial, prepared.evaluator, prepared.schedule),
                n_trials=1,
                catch=(TrialFailedError,),
            )
        except (UpdateFinishedTrialError, ValueError) as error:
            # This worker was silent for too long, another has taken its trial over: nothing is lost.
            if isinstance(error, ValueError) and "Cannot tell" not in str(error):
                raise


def _worker(space_json: str, device: str, url: str, memo: str) -> None:
    """Works on a study in a process of its own."""
    prepared = prepare_search(Space.model_validate_json(space_json), torch.device(device), Memo(Path(memo)))
    study = join_study(url, prepared.study_name, prepared.objectives)
    _work(study, prepared, lambda done, total: None)


def _work_together(
    study: Study, prepared: Prepared, out: Path, device: torch.device, workers: int, url: str, progress: Progress
) -> None:
    """Starts workers and waits for them. The death of one costs its running trial; the others go on.

    Raises:
        LeakgaugeError: All of them ended before the trials were done.
    """
    job = (prepared.space.model_dump_json(), str(device), url, str(memo_folder(out)))
    wanted, failures = prepared.space.trials, list[Exception]()
    run_jobs(_worker, [job] * workers, workers, lambda: progress(min(_done(study), wanted), wanted), failures.append)
    if _done(study) < wanted:
        told = [error for error in failures if not isinstance(error, BrokenProcessPool)]
        raise told[0] if told else PluginError("all worker processes died", where=str(out), hint="run again to resume")


def _done(study: Study) -> int:
    return sum(map(has_ended, study.get_trials(deepcopy=False)))


def memo_folder(out: Path) -> Path:
    """Returns where a search keeps what it measured."""
    return out / "measured"
