"""Writes the pages that say what the code says: run by mkdocs (gen-files) at every build, and by tests/docs_check.py.

Nothing here describes an option, a column or a command: that stands in the code, once.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

import leakgauge
from leakgauge.harness.cli.commands import FIRST, command
from leakgauge.harness.cli.reference.json_schema import schema_of
from leakgauge.harness.cli.reference.show import facts_of
from leakgauge.harness.suite.configuration import description_of, shipped
from leakgauge.harness.suite.registry import plugins
from leakgauge.harness.suite.schema import Suite
from leakgauge.harness.values.columns import CELL_COLUMNS, IMAGE_COLUMNS, KIND_COLUMNS, SCHEMA_VERSION, Column
from leakgauge.harness.values.stored_shapes import Curve, Manifest, StoredPart

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))
from markdown_tables import model_tables, table  # noqa: E402 - beside this file, which no package holds

GROUPS = {
    "attacks": "Attacks and probes",
    "defenses": "Defenses",
    "reductions": "Reductions",
    "perturbations": "Perturbations",
    "codecs": "Codecs",
    "channels": "Channels",
    "tasks": "Tasks",
    "metrics": "Metrics",
    "judges": "Judges",
    "reports": "Writers of reports",
}
ABILITIES = ("Previewable", "Inspectable", "Ablatable", "Differentiable", "Tunable", "Accountable")
CONTRACTS = {
    "Attack": "leakgauge.harness.contracts.attack.Attack",
    "Declarations": "leakgauge.harness.contracts.declarations.Declarations",
    "AttackerView": "leakgauge.harness.contracts.attack.AttackerView",
    "Knowledge": "leakgauge.harness.contracts.declarations.Knowledge",
    "AttributeProbe": "leakgauge.harness.contracts.probing.AttributeProbe",
    "IdentityProbe": "leakgauge.harness.contracts.probing.IdentityProbe",
    "Reduction": "leakgauge.harness.contracts.reduction.Reduction",
    "LayerState": "leakgauge.harness.contracts.reduction.LayerState",
    "Assignment": "leakgauge.harness.contracts.reduction.Assignment",
    "Perturbation": "leakgauge.harness.contracts.link.Perturbation",
    "Codec": "leakgauge.harness.contracts.link.Codec",
    "SymbolCodec": "leakgauge.harness.contracts.link.SymbolCodec",
    "Channel": "leakgauge.harness.contracts.link.Channel",
    "PerImageChannel": "leakgauge.harness.contracts.link.PerImageChannel",
    "PacketChannel": "leakgauge.harness.contracts.link.PacketChannel",
    **{name: f"leakgauge.harness.contracts.defense.{name}" for name in ("Defense", *ABILITIES)},
    "Task": "leakgauge.harness.contracts.task.Task",
    "LabelledTask": "leakgauge.harness.contracts.task.LabelledTask",
    "SimpleDefense": "leakgauge.defenses.simple.SimpleDefense",
    "QuestionTask": "leakgauge.harness.contracts.questions.QuestionTask",
    "Metric": "leakgauge.harness.contracts.metric.Metric",
    "Judge": "leakgauge.harness.scoring.judging.Judge",
    "Victim": "leakgauge.harness.contracts.victim.Victim",
    "ImageSet": "leakgauge.harness.values.images.ImageSet",
    "TokenBatch": "leakgauge.harness.values.tokens.TokenBatch",
    "Observation": "leakgauge.harness.values.observation.Observation",
    "LearningCurve": "leakgauge.harness.values.learning_curve.LearningCurve",
    "Streams": "leakgauge.harness.values.seeding.Streams",
}
FILES = {
    "run.json": "suite, task, data, weights, attacks, metrics, judge, what was read, code, machine, sessions",
    "cells.csv": "a row a cell: one attack on one operating point, channel, threat model and seed",
    "images.parquet": "a row an evaluation image and cell",
    "quality_by_kind.csv": "a row a kind of question, where the task asks questions",
    "parts/CELL.json": "what was measured for one cell, with a checksum; the tables are assembled from these",
    "reconstructions/CELL.png": "all reconstructions of a cell, lossless, in one sheet; `originals.png` beside them",
    "attacks/CELL.json": "the learning curve of a cell whose attack trains",
    "evaluation.json": "which images were evaluated, and their groups",
    "log": "what happened, line by line",
}
"""Files of a run folder; a test holds them to a run."""
FOLDERS = ("leakgauge", "harness", "defenses", "attacks", "benchmarks", "reports", "tests")
PROJECT = {
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "security": "SECURITY.md",
    **{folder: f"{folder}/README.md" for folder in FOLDERS},
}
_LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


def own(group: str) -> list[str]:
    """Returns the names of the plug-ins of this package, whatever else is installed."""
    return sorted(name for name, point in plugins(group).items() if point.value.startswith("leakgauge."))


def _said(key: str, value: Any) -> str:
    """Writes what a plug-in declares; of its knowledge what it needs, for the rest goes without saying."""
    if key != "knowledge":
        return f"`{value}`"
    pairs = re.findall(r"(\w+)=('?[\w-]+'?)", str(value))
    needs = [
        name if found == "True" else f"{name} {found}" for name, found in pairs if found not in {"False", "'none'"}
    ]
    return ", ".join(f"`{need}`" for need in needs) or "nothing beside the tokens"


def plugin_page(group: str) -> str:
    """Returns the page of a group: every plug-in as `leakgauge show` tells it."""
    blocks = [f"# {GROUPS[group]}"]
    blocks.append(
        f"Entry point group `leakgauge.{group}`; the same on the command line: `leakgauge show {group} NAME`."
    )
    for name in own(group):
        facts = facts_of(group, name)
        declared = {
            key: value for key, value in facts.items() if key not in {"group", "name", "does", "options", "from"}
        }
        blocks += [f"## {name} {{ #{name} }}", facts["does"]]
        if declared:
            blocks.append(
                "\n".join(f"- {key.replace('_', ' ')}: {_said(key, value)}" for key, value in declared.items())
            )
        if group == "reports":  # functions of runs and a folder, no options of a suite
            continue
        rows = [(f"`{one['name']}`", one["is"], f"`{one['default']}`", one["means"]) for one in facts["options"]]
        blocks.append(table(("option", "is", "default", "means"), rows) if rows else "No options.")
    return "\n\n".join(blocks) + "\n"


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or str(parameter.name).upper()}`"
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


JSON_SAID = """## Output for programs

With `--json` a command prints one JSON object on standard output, strict (what is unscored is `null`), and everything
else on standard error. Rows of cells have the [columns](columns.md) of `cells.csv`. `gate` writes its JSON to a file,
with `--json -` to standard output.

A command that fails prints this object instead, beside the line on standard error, and ends with the same exit code:

```json
{"error": {"what": "no run here: run.json is missing", "where": "runs/none",
           "hint": "name a run folder", "exit_code": 2}}
```

`where` and `hint` may be empty. Where a file has several problems, `problems` in the error lists each with its `what`,
`where` (the file and line) and `hint`. A run whose cells failed (exit code 4) prints its results, and a gate that does
not pass (1 or 3) its checks, as ever. `gate --json FILE` writes no file where it fails; whatever lay there stays."""


def command_page() -> str:
    """Returns the page of the command line, from the commands themselves."""
    names = [name for name in FIRST if name in own("commands")]
    names += [name for name in own("commands") if name not in names]
    blocks = [
        "# Command line",
        "`leakgauge COMMAND --help` says the same. `--version` and `--install-completion` stand before the command.",
        "## Exit codes",
        table(("code", "means"), exit_codes()),
        JSON_SAID,
    ]
    for name in names:
        found = command(name)
        context = found.make_context(name, [], resilient_parsing=True)
        usage = " ".join(["leakgauge", name, *found.collect_usage_pieces(context)])
        blocks += [f"## {name} {{ #{name} }}", found.help or "", f"```text\n{usage}\n```"]
        rows = []
        for parameter in found.get_params(context):
            if "--help" in parameter.opts:
                continue
            default = "" if parameter.default is None or callable(parameter.default) else f"`{parameter.default}`"
            rows.append((_names(parameter), "must be given" if parameter.required else default, parameter.help or ""))
        if rows:
            blocks.append(table(("argument or option", "default", "means"), rows))
    return "\n\n".join(blocks) + "\n"


def exit_codes() -> list[tuple[Any, ...]]:
    """Returns what the exit codes of all commands mean."""
    from leakgauge.harness.system.exit_codes import MEANINGS  # noqa: PLC0415 - beside the list that it fills

    return [(int(code), meaning) for code, meaning in MEANINGS.items()]


def columns_page() -> str:
    """Returns the page of all columns with their units."""

    def of(columns: tuple[Column, ...]) -> str:
        rows = [(f"`{c.name}`", c.kind, c.unit, c.meaning) for c in columns]
        return table(("column", "kind", "unit", "means"), rows)

    return "\n\n".join(
        [
            "# Columns",
            f"Schema version {SCHEMA_VERSION}. `NaN` means unscored: never zero, never averaged. "
            "A metric of your own adds columns of its own.",
            "## cells.csv",
            of(CELL_COLUMNS),
            "## images.parquet",
            of(IMAGE_COLUMNS),
            "## quality_by_kind.csv",
            of(KIND_COLUMNS),
            "",
        ]
    )


def suite_page() -> str:
    """Returns the page of the suite's schema."""
    head = (
        "# Suite\n\nThe keys of a suite, from the models that check it. A plug-in is its name, or its name with its "
        "options beside it: `{name: awgn, snr_db: 10}`. [JSON Schema](suite.schema.json) for editors: write\n\n"
        "```yaml\n# yaml-language-server: $schema=suite.schema.json\n```\n\ninto the first line. "
        "[Spaces](space.schema.json) for `leakgauge search` have one too."
    )
    return f"{head}\n\n{model_tables(Suite)}\n"


def shipped_page() -> str:
    """Returns the page of shipped suites and spaces, with their YAML."""
    blocks = ["# Shipped suites and spaces", "`leakgauge show suite NAME` prints one, to start your own from."]
    for group in ("suites", "spaces"):
        blocks.append(f"## {group.capitalize()}")
        for name, text in sorted(shipped(group).items()):
            folded = "\n".join(f"    {line}".rstrip() for line in ["```yaml", *text.rstrip().splitlines(), "```"])
            blocks += [
                f"### {name} {{ #{group[:-1]}-{name} }}",
                description_of(text),
                f'??? note "{name}.yaml"\n\n{folded}',
            ]
    return "\n\n".join(blocks) + "\n"


def run_folder_page() -> str:
    """Returns the page of the run folder."""
    rows = [(f"`{name}`", meaning) for name, meaning in FILES.items()]
    return "\n\n".join(
        [
            "# Run folder",
            f"Schema version {SCHEMA_VERSION}; a reader refuses versions that it does not know. `CELL` is a hash "
            "of 16 hex digits: of operating point, channel, attack, threat model, seed, data, weights and code. All is "
            "written atomically; a killed run loses at most the cells that were being computed. The tables' "
            "[columns](columns.md) have a page of their own.",
            table(("file", "holds"), rows),
            "Below is what readers rely on; a file may hold more.",
            model_tables(Manifest).replace("## Manifest", "## run.json { #manifest }", 1),
            model_tables(StoredPart).replace("## Part", "## parts/CELL.json { #part }", 1),
            model_tables(Curve)
            .replace("## Curve", "## attacks/CELL.json { #curve }", 1)
            .replace("## CurvePoint", "## CurvePoint { #curvepoint }"),
            "",
        ]
    )


def api_page() -> str:
    """Returns the page of the front door."""
    contracts = {name for name in CONTRACTS if name in leakgauge.__all__}
    names = [name for name in leakgauge.__all__ if name not in contracts and name != "__version__"]
    blocks = [
        "# Python",
        "`import leakgauge` imports nothing heavy until a name is used. [Contracts](contracts.md) stand apart.",
    ]
    blocks += [f"::: {getattr(leakgauge, name).__module__}.{name}" for name in sorted(names, key=str.lower)]
    return "\n\n".join(blocks) + "\n"


def contracts_page() -> str:
    """Returns the page of the contracts."""
    blocks = [
        "# Contracts",
        "What plug-in authors implement, and what is handed to them. [Extend](../extend/index.md) shows one of each.",
    ]
    return "\n\n".join([*blocks, *(f"::: {place}" for place in CONTRACTS.values())]) + "\n"


def project_page(name: str) -> str:
    """Returns a text of the repository as a page, its links pointing to pages or made plain."""
    source = PROJECT[name]
    pages = {path: f"{other}.md" for other, path in PROJECT.items()}

    def moved(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        if target in pages:
            return f"]({pages[target]}{found[2] or ''})"
        if target.startswith("docs/"):
            return f"](../{target.removeprefix('docs/')}{found[2] or ''})"
        return f"](#{name})"

    return _LINK.sub(moved, (ROOT / source).read_text(encoding="utf-8"))


def pages() -> dict[str, str]:
    """Returns all generated pages by their path in the site."""
    found = {f"reference/plugins/{group}.md": plugin_page(group) for group in GROUPS}
    found |= {f"project/{name}.md": project_page(name) for name in PROJECT}
    found |= {
        f"examples/{path.name}": path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "examples").glob("*.ipynb"))
    }
    return found | {
        "reference/python.md": api_page(),
        "reference/contracts.md": contracts_page(),
        "reference/cli.md": command_page(),
        "reference/suite.md": suite_page(),
        "reference/suite.schema.json": json.dumps(schema_of("suite", own), indent=2),
        "reference/space.schema.json": json.dumps(schema_of("space", own), indent=2),
        "reference/shipped.md": shipped_page(),
        "reference/columns.md": columns_page(),
        "reference/run-folder.md": run_folder_page(),
    }


if __name__ != "docs_generate":  # as the documentation's check imports it
    import mkdocs_gen_files

    for path_, text_ in pages().items():
        with mkdocs_gen_files.open(path_, "w") as stream:
            stream.write(text_)
