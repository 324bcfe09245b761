"""The LaTeX writer: booktabs tables for a paper, to be put into one as they are, and a page that compiles by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leakgauge.harness.store.run_folder import RunFolder, write_atomic
from leakgauge.reports.analysis.judge import judge_note
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import LoadedRun, Row, Setting, load_runs
from leakgauge.reports.notation import UNSCORED, bounds, is_number, number

_SPECIAL = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{NO-BREAK SPACE}": "~",
}
_MARKS = {"inconclusive": r"\textsuperscript{*}", "lower bound": r"\textsuperscript{\dag}"}
_NOTE = (
    "Brackets hold 95\\,\\% bootstrap intervals that resample groups of dependent images. An asterisk marks what rests "
    "on an inconclusive attack, a dagger what rests on one that cannot find hidden positions: lower bounds both."
)


def escape(text: str) -> str:
    """Escapes what LaTeX would read as a command; what its default fonts lack becomes a question mark."""
    return "".join(_SPECIAL.get(c, c if " " <= c <= "~" or "\xa1" <= c <= "\xff" else "?") for c in text)


def _ranged(row: Row, name: str, digits: int, scale: float = 1.0) -> str:
    if not is_number(row.get(name)):
        return UNSCORED
    interval = bounds(row.get(f"{name}_lo"), row.get(f"{name}_hi"), digits, scale=scale)
    small = rf" {{\scriptsize {escape(interval)}}}" if interval else ""
    return f"{escape(number(row[name], digits, scale=scale))}{small}"


def _plain(row: Row, name: str, digits: int, scale: float = 1.0) -> str:
    return escape(number(row.get(name), digits, scale=scale))


_POINT_HEADINGS = (
    ("Operating point", ""),
    ("Quality", r"\%"),
    ("Tokens", ""),
    ("Payload", "byte"),
    ("Edge", "GFLOP"),
    ("Total", "GFLOP"),
    ("PSNR", "dB"),
    ("SSIM", ""),
    ("LPIPS", ""),
    ("Re-id.", r"\%"),
    ("by victim", r"\%"),
    ("Leakage", "dB"),
)


def points_table(run: LoadedRun, setting: Setting, rows: Sequence[Row]) -> str:
    """Returns the operating points of a channel and threat model: cost, quality, and the strongest attack's scores."""
    here = [row for row in rows if (row["channel"], row["threat_model"]) == setting]
    lines = []
    for row in here:
        mark = _MARKS.get(str(row["verdict"]), "")
        entries = [
            escape(str(row["operating_point"])) + mark,
            _ranged(row, "quality", 1, 100),
            _plain(row, "tokens", 1),
            _plain(row, "payload_bytes", 0),
            _plain(row, "gflops_edge", 3),
            _plain(row, "gflops_total", 3),
            _ranged(row, "strongest_psnr_db", 2),
            _ranged(row, "strongest_ssim", 3),
            _ranged(row, "strongest_lpips", 3),
            *(_ranged(row, f"strongest_{score.name}", score.digits) for score in run.own_scores),
            _ranged(row, "judge_reid_top1", 0, 100),
            _ranged(row, "reid_top1", 0, 100),
            _ranged(row, "strongest_leakage", 2),
        ]
        lines.append(" & ".join(entries))
    images = run.task.get("evaluation_images", "all")
    caption = (
        f"Strongest attack on average over {images} images, {_place(run, setting)}; every score is of the attack that "
        "is best at it. Leakage is PSNR above the best floor. "
        f"{escape(judge_note(run))} {_NOTE}"
    )
    own = [(escape(score.heading), escape(score.unit)) for score in run.own_scores]
    place = _POINT_HEADINGS.index(("LPIPS", "")) + 1
    named = (*_POINT_HEADINGS[:place], *own, *_POINT_HEADINGS[place:])
    heads = [f"{name} ({unit})" if unit else name for name, unit in named]
    return _table(heads, lines, caption, f"tab:{_key(run, setting)}-points")


def attacks_table(run: LoadedRun, setting: Setting) -> str:
    """Returns attack by operating point: the mean PSNR in dB, with a mark where it is not conclusive."""
    points = run.points_at(setting)
    cells = {(str(c["attack"]), str(c["operating_point"])): c for c in run.cells_at(setting) if c["seed"] == _seed(run)}
    attacks = [a for a in dict.fromkeys(a for a, _ in cells) if not run.is_probe(a)]
    lines = []
    for attack in attacks:
        entries = [escape(attack) + (" (floor)" if run.is_floor(attack) else "")]
        for point in points:
            cell = cells.get((attack, point))
            if cell is None:
                entries.append("--")
            elif cell["status"] != "done":
                entries.append(escape(str(cell["status"])))
            else:
                entries.append(_ranged(cell, "psnr_db", 2) + _MARKS.get(str(cell["verdict"]), ""))
        lines.append(" & ".join(entries))
    seeds = f", seed {_seed(run)}" if len(run.suite.seeds) > 1 else ""
    caption = (
        f"Mean PSNR in dB of every attack that rebuilds images, {_place(run, setting)}{seeds}; higher means that more "
        f"is rebuilt. A dash was not planned. {_NOTE}"
    )
    return _table(["Attack", *map(escape, points)], lines, caption, f"tab:{_key(run, setting)}-attacks")


def _place(run: LoadedRun, setting: Setting) -> str:
    names = (escape(name) for name in (run.suite.name, setting.channel, setting.threat_model))
    return "suite {}, channel {}, threat model {}".format(*names)


def _seed(run: LoadedRun) -> int:
    return run.suite.seeds[0]


def _key(run: LoadedRun, setting: Setting) -> str:
    text = f"{run.label}-{setting.channel}-{setting.threat_model}"
    return "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "-" for c in text)


def _table(heads: Sequence[str], lines: Sequence[str], caption: str, label: str) -> str:
    columns = "l" + "r" * (len(heads) - 1)
    body = " \\\\\n    ".join([" & ".join(heads) + r" \\ \midrule", *lines]).replace(r"\midrule \\", r"\midrule")
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \label{{{label}}}",
            r"  \resizebox{\linewidth}{!}{%",
            rf"  \begin{{tabular}}{{{columns}}}",
            r"    \toprule",
            f"    {body} \\\\",
            r"    \bottomrule",
            r"  \end{tabular}}",
            r"\end{table}",
        ]
    )


def write_latex(runs: Sequence[RunFolder | LoadedRun], out: Path) -> list[Path]:
    r"""Writes ``tables.tex``, to be ``\input`` where booktabs and graphicx are loaded, and ``tables_page.tex``.

    Raises:
        StoreError: A run cannot be read, or the folder cannot be written.
    """
    blocks = []
    for run in load_runs(runs):
        rows = point_rows(run)
        for setting in run.settings:
            if any(is_number(r["strongest_psnr_db"]) for r in rows if (r["channel"], r["threat_model"]) == setting):
                blocks += [points_table(run, setting, rows), attacks_table(run, setting)]
            else:
                blocks.append(f"\\noindent No reconstruction was scored: {_place(run, setting)}.\\par")
    tables = "% Needs \\usepackage{booktabs} and \\usepackage{graphicx}.\n" + "\n\n".join(blocks) + "\n"
    page = "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage[a4paper,landscape,margin=15mm]{geometry}",
            r"\usepackage{booktabs}",
            r"\usepackage{graphicx}",
            r"\begin{document}",
            r"\input{tables}",
            r"\end{document}",
            "",
        ]
    )
    files = {"tables.tex": tables, "tables_page.tex": page}
    for name, text in files.items():
        write_atomic(out / name, text.encode())
    return [out / name for name in files]
