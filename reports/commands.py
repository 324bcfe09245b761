"""The commands ``compare``, ``baseline``, ``gate`` and ``runs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from leakgauge.harness.cli.json_output import AsJson, json_alone, print_json, print_written
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.store.run_folder import RunFolder, write_atomic
from leakgauge.harness.system import console
from leakgauge.harness.system.exit_codes import ExitCode
from leakgauge.harness.system.files.output_paths import check_file_free, check_folder_free, check_still_there
from leakgauge.reports.analysis.run import LoadedRun, load_runs
from leakgauge.reports.analysis.run_list import runs_data, runs_grid
from leakgauge.reports.comparison.compare import Comparison
from leakgauge.reports.comparison.compare import compare as compare_runs
from leakgauge.reports.comparison.output import compare_grid, compare_summary, comparison_data, write_comparison
from leakgauge.reports.gate.baseline import Baseline, BaselinePoint, baseline_of, read_baseline, write_baseline
from leakgauge.reports.gate.check import Gate
from leakgauge.reports.gate.ci import add_step_summary, annotation_lines, gate_sarif, on_github
from leakgauge.reports.gate.gate import judge
from leakgauge.reports.gate.limits import Limits, read_limits
from leakgauge.reports.gate.output import gate_grid, gate_json, headline, write_gate
from leakgauge.reports.tables.table import Grid

_out = console.output(width=180)
_COLOURS = {"good": "green", "bad": "red", "warn": "yellow", "muted": "dim", "": ""}
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]


def _loaded(path: Path) -> LoadedRun:
    return load_runs([RunFolder.open(path)])[0]


def _table(grid: Grid) -> Table:
    table = Table(title=escape(grid.caption), header_style="bold", title_justify="left")
    for heading in grid.headings:
        unit = f"\n{heading.unit}" if heading.unit else ""
        table.add_column(escape(heading.text + unit), justify="right" if heading.numeric else "left")
    for row in grid.rows:
        table.add_row(
            *(
                f"[{_COLOURS[v.tone]}]{escape(text)}[/]" if _COLOURS[v.tone] else escape(text)
                for v in row
                for text in [f"{v.text}\n{v.detail}" if v.text and v.detail else v.text or v.detail]
            )
        )
    return table


def compare(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The run to compare with.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The run that is judged.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the page, comparison.md and comparison.csv.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also list what did not clearly change.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compares two runs image by image: what got worse, better, or cannot be compared, and why."""
    with json_alone(as_json):
        found = _compare(base, new, out, everything=everything)
    if as_json:
        print_json(comparison_data(found))


def _compare(base: Path, new: Path, out: Path | None, *, everything: bool) -> Comparison:
    if out is not None:
        check_folder_free(out)
    runs = load_runs([RunFolder.open(base), RunFolder.open(new)])
    found = compare_runs(*runs)
    written = [*write_comparison(found, out), write_comparison_page(runs, out)] if out is not None else []
    check_still_there(written, out or Path())
    for outcome in ("worse", "better", "not comparable", *(("no clear change", "identical") if everything else ())):
        if found.of(outcome):
            _out.print(_table(compare_grid(found, outcome)))
    for note in found.notes:
        _out.print(f"note: {note}", markup=False, soft_wrap=True)
    _out.print(compare_summary(found))
    for path in written:
        _out.print(str(path), markup=False, highlight=False, soft_wrap=True)
    return found


def write_comparison_page(runs: list[LoadedRun], out: Path) -> Path:
    """Writes index.html: what changed, with pictures of the images that leak more.

    Raises:
        StoreError: The folder cannot be written.
    """
    from leakgauge.reports.comparison.page import comparison_html  # noqa: PLC0415 - matplotlib takes a second
    from leakgauge.reports.writers.html import environment  # noqa: PLC0415 - likewise

    write_atomic(out / "index.html", comparison_html(environment(), runs, [""] * len(runs)).encode())
    return out / "index.html"


def _worded(verdict: str) -> str:
    return "a lower bound" if verdict == "lower bound" else verdict


def baseline(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("leakgauge-baseline.json"),
    attack: Annotated[
        list[str] | None, typer.Option(help="An attack that counts, beside floors; default: all of the run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Writes the baseline file that `gate` judges later runs by; commit it and review its diffs."""
    check_file_free(out)
    loaded = _loaded(run)
    found = baseline_of(loaded, attack or ())
    write_baseline(found, out)
    if as_json:
        points = [_point_data(point) for point in found.points]
        print_json({"baseline": out, "images": len(found.images), "operating_points": points})
        return
    _out.print(f"{out}: {len(found.points)} operating points, {len(found.images)} images", soft_wrap=True)
    for point in found.points:
        if point.verdict != "conclusive":
            place = f"{point.operating_point}, threat model {point.threat_model}"
            _out.print(f"note: {place} is {_worded(point.verdict)}: {point.reason}", markup=False, soft_wrap=True)


def _point_data(point: BaselinePoint) -> dict[str, Any]:
    names = ("operating_point", "channel", "threat_model", "verdict", "reason")
    return {name: getattr(point, name) for name in names}


def gate(
    run: RunArgument,
    baseline: Annotated[Path | None, typer.Option(help="File that `leakgauge baseline` wrote.")] = None,
    limits: Annotated[Path | None, typer.Option(help="YAML file of limits; without it, the defaults.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write JSON; `-` is standard output, all else standard error.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown for a pull request.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write SARIF 2.1.0 for code scanning.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page: what did not pass, and pictures of it.")] = None,
    github: Annotated[
        bool | None,
        typer.Option(
            "--github/--no-github", help="Annotate, and add to the step summary; by default in GitHub Actions."
        ),
    ] = None,
    update_baseline: Annotated[
        bool, typer.Option("--update-baseline", help="Accept this run: write --baseline anew, and exit 0.")
    ] = False,
    accept_lower_bounds: Annotated[
        bool, typer.Option(help="Pass where lower bounds do not rise; as `lower_bounds: judge` in the limits.")
    ] = False,
) -> None:
    """Judges a run: exit 0 pass, 1 worse than allowed, 3 cannot tell, 2 usage."""
    aloud, json = json == Path("-"), None if json == Path("-") else json
    inputs = [path for path in (baseline, limits) if path is not None]
    files = {"--junit": junit, "--json": json, "--markdown": markdown, "--sarif": sarif, "--html": html}
    for option, path in files.items():
        if path is not None:
            check_file_free(path, inputs, option)
            inputs.append(path)
    if update_baseline and baseline is None:
        raise ConfigError("there is no baseline to update", where="--update-baseline", hint="name it with --baseline")
    known = None if baseline is None else read_baseline(baseline)
    stated = Limits() if limits is None else read_limits(limits)
    if accept_lower_bounds:
        stated = stated.model_copy(update={"lower_bounds": "judge"})
    loaded = _loaded(run)
    found = judge(loaded, known, stated)
    # Files first: whoever reads the console may be gone.
    write_gate(found, json, junit, markdown)
    judged_by = baseline or limits
    if sarif is not None:
        write_atomic(sarif, gate_sarif(found, judged_by or run))
    if html is not None:
        _write_gate_page(html, found, loaded, "" if baseline is None else str(baseline), known)
    if on_github() if github is None else github:
        add_step_summary(found)
        for line in annotation_lines(found, judged_by):
            typer.echo(line, err=aloud)
    with json_alone(aloud):
        _tell(found)
        if update_baseline:
            assert baseline is not None
            assert known is not None
            _update(loaded, baseline, known)
    if aloud:
        print_written(gate_json(found))
    raise typer.Exit(ExitCode.DONE if update_baseline else found.exit_code)


def _write_gate_page(path: Path, found: Gate, run: LoadedRun, against: str, known: Baseline | None) -> None:
    from leakgauge.reports.gate.page import gate_html  # noqa: PLC0415 - matplotlib takes a second
    from leakgauge.reports.writers.html import environment  # noqa: PLC0415 - likewise

    write_atomic(path, gate_html(environment(), found, run, against, known).encode())


def _tell(found: Gate) -> None:
    if found.outcome != "pass":
        _out.print(_table(gate_grid(found, failures_only=True)))
    for note in found.notes:
        _out.print(f"note: {note}", markup=False, soft_wrap=True)
    _out.print(headline(found))


def _update(run: LoadedRun, path: Path, known: Baseline) -> None:
    """Writes a baseline anew from a run, counting the same attacks, and says how its operating points changed."""
    found = baseline_of(run, known.counted or ())
    write_baseline(found, path)
    before, now = ({point.operating_point for point in one.points} for one in (known, found))
    changed = [f"+ {name}" for name in sorted(now - before)] + [f"- {name}" for name in sorted(before - now)]
    told = f"; {', '.join(changed)}" if changed else ""
    _out.print(f"{path} is written anew: {len(found.points)} operating points{told}", markup=False, soft_wrap=True)


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder that holds runs.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Lists the runs of a folder with their headline numbers."""
    if as_json:
        print_json({"folder": folder, "runs": runs_data(folder)})
        return
    _out.print(_table(runs_grid(folder)))
