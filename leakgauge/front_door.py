"""What ``import leakgauge`` offers: run, read, compare, gate and search, without a YAML file or with one."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.run.executors import default_workers
from leakgauge.harness.run.plan import check_complete, prepare
from leakgauge.harness.run.rescoring import rescore
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.configuration import read_configuration
from leakgauge.harness.suite.registry import load, plugins
from leakgauge.harness.suite.schema import Suite, parse_suite
from leakgauge.harness.system.containment import staying
from leakgauge.harness.system.extras import hint_of
from leakgauge.harness.system.files.locking import exclusive
from leakgauge.harness.system.files.output_paths import check_folder_free
from leakgauge.harness.system.files.sweeping import sweep
from leakgauge.harness.system.machine import choose_device
from leakgauge.notebook import Markup, NotebookBar, shown_gallery
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import LoadedRun, Writer, load_runs
from leakgauge.reports.comparison.compare import Comparison
from leakgauge.reports.comparison.compare import compare as compare_loaded
from leakgauge.reports.gate.baseline import Baseline, baseline_of, read_baseline, write_baseline
from leakgauge.reports.gate.check import Gate
from leakgauge.reports.gate.gate import judge
from leakgauge.reports.gate.limits import Limits, read_limits
from leakgauge.reports.writers.gallery import gallery

if TYPE_CHECKING:
    from leakgauge.harness.search.results.front import Front

Point = str | Mapping[str, Any]
Progress = Callable[[int, int], None]
_SHOWN = (
    "operating_point",
    "channel",
    "threat_model",
    "verdict",
    "strongest_leakage",
    "strongest_leakage_lo",
    "strongest_leakage_hi",
    "strongest_psnr_db",
    "strongest_ssim",
    "quality",
    "tokens",
    "payload_bytes",
    "gflops_total",
)


def OperatingPoint(reduction: str, name: str | None = None, **options: Any) -> dict[str, Any]:  # noqa: N802 - a kind
    """Returns an operating point: a reduction with its options, named after both where no name is given.

    >>> OperatingPoint("threshold", thresholds=0.9)
    {'name': 'threshold_0.9', 'reduction': {'name': 'threshold', 'thresholds': 0.9}}
    """
    said = [str(value) for value in options.values() if isinstance(value, int | float)]
    return {"name": name or "_".join([reduction, *said]), "reduction": {"name": reduction, **options}}


class Run:
    """A run on disk, finished or not. Everything it tells is read from its folder.

    Args:
        path: The run folder.

    Raises:
        StoreError: There is no run, or it cannot be read.
    """

    def __init__(self, path: Path | str) -> None:
        self.folder = RunFolder.open(path)
        self._loaded: LoadedRun | None = None

    def __repr__(self) -> str:
        loaded = self.loaded
        return f"<Run of {loaded.suite.name}, {loaded.status}, {len(self.cells)} cells, in {self.path}>"

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def loaded(self) -> LoadedRun:
        """The run as the reports see it, read once."""
        if self._loaded is None:
            self._loaded = load_runs([self.folder])[0]
        return self._loaded

    @property
    def suite(self) -> Suite:
        """The suite that was run, resolved."""
        return self.loaded.suite

    @property
    def cells(self) -> pd.DataFrame:
        """A row a cell: one attack on one operating point; columns and units as in ``values.columns``."""
        return self.loaded.cells

    @property
    def images(self) -> pd.DataFrame:
        """A row an evaluation image and cell."""
        return self.loaded.images

    @property
    def points(self) -> pd.DataFrame:
        """A row an operating point: verdict, leakage of the strongest attack, quality, costs."""
        rows = pd.DataFrame(point_rows(self.loaded))
        return rows[[name for name in _SHOWN if name in rows]]

    def report(self, out: Path | str | None = None) -> Path:
        """Writes the report, into ``report`` in the run folder if nothing is said; returns its page."""
        return report(self, out=self.path / "report" if out is None else out)

    def score(self, device: str = "auto") -> int:
        """Scores the stored reconstructions again; returns how many cells."""
        count, self._loaded = rescore(self.folder, choose_device(device)), None
        return count

    def compare(self, new: Run | Path | str) -> Comparison:
        """Compares a newer run with this one, image by image."""
        return compare(self, new)

    def baseline(self, out: Path | str | None = None, attacks: Sequence[str] = ()) -> Baseline:
        """Returns what later runs are judged by, and writes it where a file is named; commit that."""
        found = baseline_of(self.loaded, attacks)
        if out is not None:
            write_baseline(found, Path(out))
        return found

    def gate(self, baseline: Baseline | Path | str | None = None, limits: Limits | Path | str | None = None) -> Gate:
        """Judges the run by a baseline and limits: ``outcome`` and ``checks``, as the command ``gate``."""
        return gate(self, baseline, limits)

    def gallery(self) -> Markup:
        """Returns originals beside what the strongest attack rebuilds at every point, as a notebook shows it."""
        return shown_gallery(gallery(self.loaded))

    def frontier(self, cost: str = "payload_bytes") -> Any:
        """Draws leakage against a column of ``points``; returns a matplotlib figure, which a notebook shows.

        Raises:
            ConfigError: There is no such column.
        """
        from leakgauge.notebook import ShownFigure  # noqa: PLC0415 - matplotlib takes a second

        points = self.points
        if cost not in points.columns[4:]:
            raise ConfigError(f"no cost {cost!r}", where="frontier", hint=f"one of {', '.join(points.columns[9:])}")
        figure = ShownFigure(figsize=(5.0, 3.4), layout="constrained")
        axes = figure.subplots()
        for place, rows in points.groupby(["channel", "threat_model"], sort=False):
            low = rows["strongest_leakage"] - rows["strongest_leakage_lo"]
            high = rows["strongest_leakage_hi"] - rows["strongest_leakage"]
            label = ", ".join(map(str, place))
            axes.errorbar(rows[cost], rows["strongest_leakage"], yerr=[low, high], fmt="o", capsize=3, label=label)
            for _, row in rows.iterrows():
                axes.annotate(row["operating_point"], (row[cost], row["strongest_leakage"]), fontsize=7)
        axes.set_xlabel(cost.replace("_", " "))
        axes.set_ylabel("leakage, dB above the best floor")
        axes.legend(fontsize=7)
        return figure

    def _repr_html_(self) -> str:
        table = self.points.to_html(index=False, float_format=lambda value: f"{value:.3g}", na_rep="unscored", border=0)
        said = html.escape(repr(self))
        return f"<p>{said}</p>{table}{self.gallery()._repr_html_()}"


def run(
    suite: str | Path | Mapping[str, Any] | Suite | None = None,
    *,
    out: Path | str | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    points: Sequence[Point] | None = None,
    **keys: Any,
) -> Run:
    """Runs a suite, or resumes it where ``out`` holds a part of it.

    Args:
        suite: A YAML file, the name of a shipped suite, or the suite's keys; None where ``keys`` say all.
        out: The run folder; a temporary one if nothing is said.
        device: auto, cpu or cuda.
        workers: Processes; one a core if nothing is said. Scripts that use more than one need the usual guard
            ``if __name__ == "__main__":``.
        progress: Called with cells done and cells in all; in a notebook a bar if nothing is said.
        points: Operating points: mappings as ``OperatingPoint`` makes them; ``"undefended"`` merges nothing, and the
            name of any other reduction stands for it with its defaults.
        keys: Keys of the suite, over those of ``suite``: ``task``, ``attacks``, ``evaluation_images``, ...

    Raises:
        LeakgaugeError: The suite or a plug-in is at fault, or data are missing.
    """
    resolved = _resolved(suite, points, keys)
    chosen = choose_device(device)
    check_complete(resolved)
    folder = Path(tempfile.mkdtemp(prefix="leakgauge-")) / "run" if out is None else Path(out)
    with staying(resolved.name):
        count = default_workers(chosen) if workers is None else workers
        store = run_suite(prepare(resolved, chosen), folder, chosen, count, progress or NotebookBar())
    return Run(store.path)


def _resolved(
    suite: str | Path | Mapping[str, Any] | Suite | None, points: Sequence[Point] | None, keys: Mapping[str, Any]
) -> Suite:
    if isinstance(suite, Suite):
        read = suite.model_dump(mode="json")
    elif isinstance(suite, Mapping):
        read = dict(suite)
    elif suite is None:
        read = {"name": "run"}
    else:
        read = read_configuration(str(suite), "suite")
    read |= keys
    if points is not None:
        read["operating_points"] = [_point(point) for point in points]
    return parse_suite(read, where="run()" if suite is None or isinstance(suite, Mapping) else str(suite))


def _point(point: Point) -> dict[str, Any]:
    if not isinstance(point, str):
        return dict(point)
    return {"name": point} if point == "undefended" else {"name": point, "reduction": point}


def open_run(path: Path | str) -> Run:
    """Opens a run folder for reading."""
    return Run(path)


def _run_of(run_: Run | Path | str) -> Run:
    return run_ if isinstance(run_, Run) else Run(run_)


def report(*runs: Run | Path | str, out: Path | str) -> Path:
    """Writes the report of one run or more; returns its page.

    Raises:
        StoreError: A run cannot be read, or the folder cannot be written.
    """
    folder = Path(out)
    check_folder_free(folder)
    with exclusive(folder), staying("report"):
        sweep(folder, folder / "figures")
        loaded = load_runs([_run_of(one).folder for one in runs])
        for name in sorted(plugins("reports")):
            cast(Writer, load("reports", name))(loaded, folder)
    return folder / "index.html"


def compare(base: Run | Path | str, new: Run | Path | str) -> Comparison:
    """Compares two runs image by image: ``rows``, each worse, better, unclear or not comparable, and ``notes``."""
    return compare_loaded(*load_runs([_run_of(base).folder, _run_of(new).folder]))


def gate(
    run: Run | Path | str,
    baseline: Baseline | Path | str | None = None,
    limits: Limits | Path | str | None = None,
) -> Gate:
    """Judges a run by a baseline and limits, as the command ``gate``: ``outcome`` is pass, exceeds or cannot tell."""
    known = read_baseline(Path(baseline)) if isinstance(baseline, str | Path) else baseline
    stated = read_limits(Path(limits)) if isinstance(limits, str | Path) else limits
    return judge(_run_of(run).loaded, known, stated or Limits())


def search(
    space: str | Path,
    *,
    out: Path | str,
    device: str = "auto",
    workers: int = 1,
    progress: Progress | None = None,
    overrides: Sequence[str] = (),
) -> Front:
    """Searches Pareto-optimal operating points, or resumes where ``out`` holds a part; returns the front.

    Args:
        space: A YAML file, or the name of a shipped space.
        out: The folder of the search.
        device: auto, cpu or cuda.
        workers: Processes.
        progress: Called with trials done and trials in all; in a notebook a bar if nothing is said.
        overrides: ``key=value``, as ``--set`` takes them: ``trials=20``.

    Raises:
        LeakgaugeError: The space cannot be searched, or the extra ``search`` is not installed.
    """
    try:
        from leakgauge.harness.search.results.output import write_results  # noqa: PLC0415
        from leakgauge.harness.search.space import load_space  # noqa: PLC0415
        from leakgauge.harness.search.study import memo_folder, prepare_search, run_search  # noqa: PLC0415
        from leakgauge.harness.search.trials.memo import Memo  # noqa: PLC0415 - of an extra, as are those below
        from leakgauge.harness.search.trials.trials import tried  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(str(error), where="leakgauge.search", hint=hint_of(error)) from error
    folder, chosen = Path(out), choose_device(device)
    with staying(str(space)), exclusive(folder):
        sweep(folder, *memo_folder(folder).glob("*"))
        prepared = prepare_search(load_space(str(space), list(overrides)), chosen, Memo(memo_folder(folder)))
        study = run_search(prepared, folder, chosen, workers, None, progress or NotebookBar())
        return write_results(prepared, tried(study), folder)
