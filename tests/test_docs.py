"""What is generated for the documentation is complete, and its check refuses what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import docs_check
import pytest
import yaml
from toy_task import register

import leakgauge
from leakgauge.harness.cli.reference.show import facts_of
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.runner import run_suite
from leakgauge.harness.suite.schema import Suite, parse_suite
from leakgauge.harness.values.columns import CELL_COLUMNS, IMAGE_COLUMNS

PAGE = docs_check.ROOT / "docs" / "guides" / "suites.md"


@pytest.fixture(scope="module")
def generator():
    return docs_check.generator()


@pytest.fixture(scope="module")
def pages(generator) -> dict[str, str]:
    return generator.pages()


def test_every_option_of_every_plugin_is_on_its_page(generator, pages):
    for group in generator.GROUPS:
        page = pages[f"reference/plugins/{group}.md"]
        for name in generator.own(group):
            assert f"## {name} " in page
            section = page.partition(f"## {name} ")[2].partition("\n## ")[0]
            for option in [] if group == "reports" else facts_of(group, name)["options"]:
                assert f"| `{option['name']}` |" in section


def test_options_have_a_meaning(pages):
    without = [
        line
        for name, page in pages.items()
        if "plugins/" in name
        for line in page.splitlines()
        if line.endswith("|  |")
    ]
    assert not without


def test_columns_keys_and_commands_are_there(generator, pages):
    for column in (*CELL_COLUMNS, *IMAGE_COLUMNS):
        assert f"| `{column.name}` |" in pages["reference/columns.md"]
    for key in Suite.model_fields:
        assert f"| `{key}` |" in pages["reference/suite.md"]
    page = pages["reference/suite.md"]
    assert not [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")]
    for name in generator.own("commands"):
        assert f"## {name} " in pages["reference/cli.md"]
    codes = [row[0] for row in generator.exit_codes()]
    assert codes == sorted({*codes})
    assert {0, 1, 2, 3, 4, 130} <= {*codes}


def test_the_run_folder_holds_what_its_page_says(generator, tmp_path, monkeypatch):
    import torch

    register(monkeypatch, tasks_toy="toy_task:Toy")
    suite = {
        "name": "folder",
        "task": "toy",
        "defense": {"name": "split_pipeline", "cut": 1},
        "operating_points": [{"name": "undefended"}],
        "attacks": ["floor_mean", {"name": "set_decoder", "steps": 4, "width": 16, "layers": 1, "batch_size": 8}],
        "metrics": ["psnr_db"],
    }
    cpu = torch.device("cpu")
    store = run_suite(prepare(parse_suite(suite), cpu), tmp_path / "run", cpu, 1, lambda done, total: None)
    files = {str(path.relative_to(store.path)) for path in store.path.rglob("*") if path.is_file()}
    kinds = {re.sub(r"[0-9a-f]{16}|originals", "CELL", name) for name in files if not Path(name).name.startswith(".")}
    # The toy task asks no questions.
    assert kinds == set(generator.FILES) - {"quality_by_kind.csv"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a](nowhere.md)", "dead link nowhere.md"),
        ("[a](suites.md#nothing-of-it)", "no heading #nothing-of-it"),
        ("[a](#nothing-of-it)", "no heading #nothing-of-it"),
        ("[a](../reference/gone.md)", "dead link"),
    ],
)
def test_links_that_lead_nowhere_are_refused(text, said):
    assert said in " ".join(docs_check.dead_links("page", f"# Page\n\n{text}\n", PAGE, {}))


@pytest.mark.parametrize(
    "text", ["[a](suites.md#which-suite)", "[a](#page)", "[a](made.md#here)", "[a](https://a.b/c)"]
)
def test_links_that_lead_somewhere_pass(text):
    made = {(PAGE.parent / "made.md").resolve(): "## Elsewhere { #here }\n"}
    assert not docs_check.dead_links("page", f"# Page\n\n{text}\n", PAGE, made)


@pytest.mark.parametrize(
    ("language", "block", "said"),
    [
        ("sh", "leakgauge frobnicate runs/a", "no command"),
        ("sh", "leakgauge run quik", "no suite quik"),
        ("sh", "leakgauge gate runs/a --baselin b.json", "no option --baselin"),
        ("sh", "make nothing", "no target"),
        ("sh", "python -m leakgauge.nothing", "no module"),
        ("console", "$ leakgauge frobnicate\nleakgauge is what it prints", "no command"),
        (
            "python",
            "from leakgauge.harness.contracts.attack import Nothing",
            "no leakgauge.harness.contracts.attack.Nothing",
        ),
        ("python", "import harness.contracts\nimport leakgauge\nleakgauge.nothing()", "no leakgauge.nothing"),
        ("python", "def (", "a block of python"),
        ("yaml", "name: a\ntask: photos\noperating_points: [{name: b}]\nattacks: []", "a block of yaml"),
        ("python", '--8<-- "examples/nothing.py"', "no file examples/nothing.py"),
    ],
)
def test_blocks_that_cannot_work_are_refused(language, block, said):
    assert said in " ".join(docs_check.bad_blocks("page", f"```{language}\n{block}\n```\n"))


def test_blocks_that_work_pass():
    good = "leakgauge run quick --out runs/a\n. .venv/bin/activate\nmake test\n"
    assert not docs_check.bad_blocks(
        "page", f"```sh\n{good}```\n\n```console\n$ leakgauge list\nprinted `words'\n```\n"
    )


def test_pages_beside_the_navigation_are_refused():
    known = docs_check.nav_problems(set())
    assert any("no page index.md" in problem for problem in known)
    assert any("lost.md is not in" in problem for problem in docs_check.nav_problems({"lost.md"}))


def test_the_citation_is_of_this_version():
    stated = yaml.safe_load((docs_check.ROOT / "CITATION.cff").read_text())
    assert stated["version"] == leakgauge.__version__
    assert {"cff-version", "message", "title", "authors", "license"} <= set(stated)
    assert f"## {leakgauge.__version__}" in (docs_check.ROOT / "CHANGELOG.md").read_text()


def test_large_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(docs_check, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text("x" * 7_001)
    assert "more than 7000" in docs_check.too_large(tmp_path / "README.md")[0]
