from leakgauge.harness.store.run_folder import write_atomic
from leakgauge.harness.system.plain_text import plain
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import load_runs


def write_headlines(runs, out):
    """Writes headlines.txt: a line an operating point. The same runs give the same bytes."""
    lines = []
    for run in load_runs(runs):
        for row in point_rows(run):
            lines.append(f"{row['operating_point']}: {row['strongest_leakage']:.1f} dB, {row['verdict']}")
    path = out / "headlines.txt"
    # Text from a run folder is text from outside: `plain` takes what could steer a terminal.
    write_atomic(path, ("\n".join(plain(line) for line in lines) + "\n").encode())
    return [path]
