"""Private parts of other libraries that nothing public stands for, each with its reason; a test fails when one goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial


def end_workers(pool: ProcessPoolExecutor) -> None:
    """Ends a pool's processes at once: Python offers it from 3.14 on (``terminate_workers``)."""
    for process in list((pool._processes or {}).values()):
        process.terminate()


def fail_trial(study: Study, trial: FrozenTrial) -> None:
    """Marks a trial failed that another process began: ``Study.tell`` would take it for this process's own."""
    from optuna.trial import TrialState  # noqa: PLC0415 - an extra

    study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)


def mark_trial(study: Study, trial: FrozenTrial, name: str, value: object) -> None:
    """Gives a sign of life of a trial, with an attribute; ``Trial``, which could too, is made after sampling."""
    record = getattr(study._storage, "record_heartbeat", None)
    if record is not None and study._storage.get_heartbeat_interval() is not None:  # type: ignore[attr-defined]
        record(trial._trial_id)
    study._storage.set_trial_user_attr(trial._trial_id, name, value)


def trial_id(trial: FrozenTrial) -> int:
    """Returns the number of a trial within its database, which holds several studies."""
    return trial._trial_id


@contextmanager
def shared_font_subsets() -> Iterator[None]:
    """Cuts fonts for PDFs once for all figures that use the same signs: matplotlib does it anew for each file.

    Cutting takes half the time of a PDF, and most figures of a report differ in no sign. A matplotlib that does it in
    another place draws the same figures, slower.
    """
    from matplotlib.backends import backend_pdf  # noqa: PLC0415 - half a second

    embedding = getattr(backend_pdf, "_backend_pdf_ps", None)
    cut = getattr(embedding, "get_glyphs_subset", None)
    if embedding is None or cut is None:
        yield
        return
    known: dict[tuple[object, frozenset[object]], object] = {}

    def cut_once(fontfile: object, glyphs: Iterable[object]) -> AbstractContextManager[object]:
        key = (fontfile, frozenset(glyphs))
        if key not in known:
            known[key] = opened.enter_context(cut(fontfile, glyphs))
        return nullcontext(known[key])

    with ExitStack() as opened:
        embedding.get_glyphs_subset = cut_once
        try:
            yield
        finally:
            embedding.get_glyphs_subset = cut
