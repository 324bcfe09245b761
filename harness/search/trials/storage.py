"""Where trials are kept: an SQLite file, or any database that Optuna reaches, for many workers at once."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import (
    DuplicatedStudyError,
    ExperimentalWarning,
    StorageInternalError,
    UpdateFinishedTrialError,
)
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from leakgauge.harness.errors import ConfigError, StoreError
from leakgauge.harness.search.objectives import Objectives
from leakgauge.harness.system.compat import fail_trial, mark_trial, trial_id

T = TypeVar("T")
GRACE_VARIABLE = "LEAKGAUGE_SEARCH_GRACE_S"
GRACE_S = 60
"""After so many seconds without a sign of life a worker's trial is taken from it and tried again; the environment
variable may say otherwise."""
SQLITE_WAIT_S = 60
BEGUN = "begun"
"""Set on a trial once its worker has given a sign of life."""
DATABASE = "trials.db"
"""File of a search that shares its trials with nobody, in its folder."""
POSTGRES_DRIVER = "postgresql+psycopg"


def sqlite_url(folder: Path) -> str:
    """Returns the address of the database in an output folder."""
    return f"sqlite:///{(folder / DATABASE).absolute()}"


def _engine_url(url: str) -> str:
    """Names the driver of PostgreSQL, so that ``postgresql://`` means the one that the extra installs.

    Raises:
        ConfigError: This is no database address.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(
            f"{url!r} is no database address", where="--storage", hint="write postgresql://user@host/database, say"
        ) from error
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername=POSTGRES_DRIVER)
    return parsed.render_as_string(hide_password=False)


def _shown(url: str) -> str:
    """Returns an address without its password."""
    return make_url(url).render_as_string(hide_password=True)


def _grace_s() -> int:
    """Returns the seconds of silence that the environment grants, or GRACE_S.

    Raises:
        ConfigError: It is no number of seconds.
    """
    text = os.environ.get(GRACE_VARIABLE, str(GRACE_S))
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{text!r} is no number of seconds", where=GRACE_VARIABLE, hint="give 60, say")
    return int(text)


def open_storage(url: str, grace_s: int | None = None) -> RDBStorage:
    """Opens a database, whose tables are made where they are missing.

    Args:
        url: Its address, ``sqlite:///...`` or ``postgresql://...``.
        grace_s: Seconds of silence after which a worker's trial is tried again; it gives ten signs of life in that
            time, though no more than one a second.

    Raises:
        ConfigError: The address is no address, or its driver is not installed.
        StoreError: The database cannot be reached.
    """
    address = _engine_url(url)
    grace_s = _grace_s() if grace_s is None else grace_s
    sqlite = address.startswith("sqlite")
    wait = {"timeout": SQLITE_WAIT_S} if sqlite else {}

    def connected() -> RDBStorage:
        return RDBStorage(
            address,
            engine_kwargs={"connect_args": wait, "pool_pre_ping": not sqlite},
            heartbeat_interval=max(1, grace_s // 10),
            grace_period=grace_s,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )

    try:
        with warnings.catch_warnings(), _alone(address):
            warnings.simplefilter("ignore", ExperimentalWarning)
            return _repeated(connected)
    except (ImportError, NoSuchModuleError) as error:
        raise ConfigError(
            "the database driver is not installed",
            where=f"--storage {_shown(url)}",
            hint="pip install 'leakgauge[postgres]' for PostgreSQL",
        ) from error
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        cause = getattr(error, "orig", None) or error
        raise StoreError(
            f"the database cannot be used: {str(cause).strip().splitlines()[0]}",
            where=f"--storage {_shown(url)}",
            hint="check that the server runs and that the address, user and password are right",
        ) from error


@contextmanager
def _alone(address: str) -> Iterator[None]:
    """Holds an SQLite file while its tables are made: two that find it empty would both make them."""
    file = make_url(address).database if address.startswith("sqlite") else None
    if not file or not Path(file).parent.is_dir():
        yield
        return
    try:
        with FileLock(f"{file}.lock", timeout=SQLITE_WAIT_S):
            yield
    except Timeout as error:
        raise StoreError("another process holds the database", where=file, hint="try again") from error


def _repeated(make: Callable[[], T]) -> T:
    """Makes what another may be making at the same time: whoever comes second finds it made."""
    for pause_s in (0.1, 0.3, 1.0, 3.0):
        try:
            return make()
        except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
            said = f"{error} {error.__cause__}".lower()
            if not any(words in said for words in ("already exists", "unique", "duplicate", "locked")):
                raise
        time.sleep(pause_s)
    return make()


def join_study(url: str, name: str, objectives: Objectives, *, alone: bool = False) -> Study:
    """Joins the search of that name in a database, both of which are made where they are missing.

    Args:
        url: Address of the database, as ``open_storage`` takes it.
        name: Names the study.
        objectives: What it searches for.
        alone: Nobody else can be at work on it, so that what still counts as running was killed, and is given up.

    Raises:
        ConfigError: The address is no address, or its driver is not installed.
        StoreError: The database fails, or its study has other objectives.
    """
    study = open_study(open_storage(url), name, objectives.directions)
    _name_objectives(study, objectives.names)
    if alone:
        _fail_running(study)
    return study


def open_study(storage: RDBStorage, name: str, directions: list[StudyDirection]) -> Study:
    """Opens the study of that name, which is made where there is none.

    Raises:
        StoreError: The database fails, or its study has other objectives.
    """
    try:
        try:
            study = _repeated(lambda: optuna.create_study(storage=storage, study_name=name, directions=directions))
        except DuplicatedStudyError:
            study = optuna.load_study(study_name=name, storage=storage)
    except (SQLAlchemyError, StorageInternalError) as error:
        raise StoreError(f"the database fails: {type(error).__name__}", where="--storage", hint="try again") from error
    if list(study.directions) != directions:
        raise StoreError(
            f"the study {name!r} has other objectives",
            where="--storage",
            hint="choose another --out or rename the space",
        )
    return study


def _name_objectives(study: Study, names: Sequence[str]) -> None:
    """Names the values of trials, for optuna-dashboard and Optuna's own plots; no sampler reads that.

    Studies of earlier versions have no names yet.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if study.metric_names != list(names):
            _repeated(lambda: study.set_metric_names(list(names)))


def _fail_running(study: Study) -> None:
    """Gives up whatever still counts as running, where no other worker can be: it was killed.

    The next trial takes the place of one that was killed, and so draws the same.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        fail_trial(study, trial)


class Reclaimer:
    """Takes trials from workers that died, wherever they ran; what they tried is queued to be tried again.

    A worker that dies right after it asked for a trial has given no sign of life yet, and Optuna would wait for it
    without end. Such a trial is given up after it was watched for the time of grace, by the clock of this machine.

    Args:
        grace_s: Seconds of silence that a worker is granted.
    """

    def __init__(self, grace_s: int | None = None) -> None:
        self._grace_s = _grace_s() if grace_s is None else grace_s
        self._first_seen: dict[int, float] = {}

    def __call__(self, study: Study) -> None:
        """Looks through the running trials once."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            first = self._first_seen.setdefault(trial_id(trial), time.monotonic())
            if BEGUN not in trial.user_attrs and time.monotonic() - first > self._grace_s:
                with suppress(UpdateFinishedTrialError):
                    fail_trial(study, trial)


def begin(study: Study, trial: FrozenTrial) -> None:
    """Gives the first sign of life of a trial; Optuna itself gives it only after sampling, which may take long."""
    mark_trial(study, trial, BEGUN, True)
