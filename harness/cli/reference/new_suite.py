"""Writes a commented suite to start from."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, cast

from leakgauge.harness.cli.reference.docstrings import meanings_of
from leakgauge.harness.contracts.questions import QuestionTask
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.run.suite_options import check_suite
from leakgauge.harness.suite.options import signature_of
from leakgauge.harness.suite.registry import load
from leakgauge.harness.suite.schema import parse_suite
from leakgauge.harness.system.files.yaml_text import read_yaml
from leakgauge.harness.system.json_data import is_plain_data
from leakgauge.harness.system.plain_text import plain, quoted

SCHEMA_FILE = "suite.schema.json"
TO_FILL = "FILL-IN"
"""Stands where an option must be given and was not."""


class NewSuite(NamedTuple):
    """A suite's text, and the options of its task that are still to be filled in."""

    text: str
    missing: list[str]


def new_suite(name: str, task: str, options: list[str], file: str) -> NewSuite:
    """Returns a commented suite that the checks of ``validate`` accept, once what is missing is filled in.

    Args:
        name: Name of the suite.
        task: Name of the task.
        options: Options of the task, ``key=value``, values in YAML.
        file: What the suite's file will be called.

    Raises:
        ConfigError: The task or an option is unknown, or a value is not allowed.
    """
    plugin = load("tasks", task, where="--task")
    given = dict(_option(text) for text in options)
    required = [option.name for option in signature_of(plugin).options.values() if option.required]
    missing = [key for key in required if key not in given]
    questions = isinstance(plugin, type) and issubclass(plugin, QuestionTask)
    text = load("templates", "suite")(questions).format(
        schema=SCHEMA_FILE,
        file=plain(file, keep=""),
        name=json.dumps(name),
        task_name=task,
        task="\n".join(f"  {line}" for line in _task_lines(plugin, task, {**dict.fromkeys(missing, TO_FILL), **given})),
        images=96,
    )
    check_suite(parse_suite(cast(dict[str, object], read_yaml(text)), where="new"))
    return NewSuite(text, missing)


def _option(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"{quoted(text)} is not of the form key=value", where="--option", hint="write path=photos")
    try:
        return key, read_yaml(value)
    except ValueError as error:
        raise ConfigError(f"{quoted(text)}: {error}", where="--option", hint="write the value as YAML") from error


def _task_lines(plugin: Any, task: str, stated: dict[str, Any]) -> list[str]:
    """Returns the task's name and stated options, then its other options as comments with their defaults."""
    meanings, known = meanings_of(plugin), signature_of(plugin).options
    lines = [f"name: {task}"]
    for key, value in stated.items():
        lines += [f"# {plain(meanings[key], keep='')}"] if meanings.get(key) else []
        lines.append(f"{json.dumps(key) if key not in known else key}: {json.dumps(value)}")
    for option in known.values():
        if option.name not in stated and is_plain_data(option.default):
            lines.append(
                f"# {option.name}: {json.dumps(option.default)}  # {plain(meanings.get(option.name, ''), keep='')}"
            )
    return lines
