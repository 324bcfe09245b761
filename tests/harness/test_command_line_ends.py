"""How a command ends: 1 is the gate's word alone, no loss of the console changes it, nothing overwrites a run."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
from typer.testing import CliRunner

from leakgauge.harness import cli
from leakgauge.harness.cli import app, commands
from leakgauge.harness.cli.commands import Commands
from leakgauge.harness.cli.json_output import print_json
from leakgauge.harness.errors import ConfigError, PluginError, StoreError
from leakgauge.harness.store import token_cache
from leakgauge.harness.suite import registry
from leakgauge.harness.system import console
from leakgauge.harness.system.containment import contained, shortage
from leakgauge.harness.system.files.output_paths import check_file_free, check_folder_free


def ended(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["leakgauge", *arguments])
    return cli._code()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "No such command"),
        (["list", "--nonsense"], 2, "No such option"),
        (["gate"], 2, "Missing argument"),
        (["run", "smoke", "--workers", "0"], 2, "workers"),
        (["gate", "/nowhere"], 2, "no run here"),
        (["gate", "a\x00b"], 2, "null byte"),
        (["choose", "\x1b[2J"], 2, "\\x1b[2J"),
        (["--help"], 0, ""),
    ],
)
def test_mistakes_end_with_2(monkeypatch, capsys, arguments, code, said):
    assert ended(monkeypatch, *arguments) == code
    err = capsys.readouterr().err
    assert said in " ".join(err.split())
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried"), 2, "out of memory"),
        (MemoryError(), 2, "out of memory"),
        (torch.OutOfMemoryError("CUDA"), 2, "out of memory"),
        (typer.Abort(), 130, "interrupted"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (SystemExit(1), 70, "SystemExit"),
        (SystemExit(0), 70, "SystemExit"),
        (ValueError("a\nb\x1b[2J" + "x" * 10_000), 70, "internal error: ValueError: a b\\x1b"),
        (BrokenPipeError(), 0, ""),
        (OSError(28, "No space left on device", "\x1b"), 2, "\\x1b: No space left"),
    ],
)
def test_whatever_is_raised_ends_in_one_line_and_never_with_1(monkeypatch, capsys, error, code, said):
    def raising(*_, **__):
        raise error

    monkeypatch.setattr(console, "discard", lambda stream: None)
    monkeypatch.setattr(cli, "app", raising)
    assert cli._code() == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") <= 1
    assert len(err) < 300


def test_ctrl_c_is_told_whatever_a_library_makes_of_it(monkeypatch, capsys):
    def masking(*_, **__):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ValueError("Invalid bounding box") from None

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest's workers ignore it
    monkeypatch.setattr(cli, "app", masking)
    try:
        assert cli._code() == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_plug_in_cannot_pose_as_the_user(monkeypatch):
    def posing(*_, **__):
        with contained("fitting", "attack 'odd'"):
            raise KeyboardInterrupt

    def pressed(*_, **__):
        with contained("fitting", "attack 'odd'"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest's workers ignore it
    try:
        for call, code in ((posing, PluginError.exit_code), (pressed, 130)):
            monkeypatch.setattr(cli, "app", call)
            assert cli._code() == code
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(KeyboardInterrupt):  # nobody notes the user's here
        posing()


def test_memory_is_told_from_other_errors():
    assert not shortage(RuntimeError("shape mismatch"))
    failed = PluginError("attack failed")
    failed.__cause__ = MemoryError()
    assert shortage(failed) == "memory"


class Gone(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [Gone(), None, "closed"])
def test_a_lost_reader_ends_nothing(monkeypatch, stream):
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    out = console.output()
    for _ in range(3):
        out.print("text", markup=False)
        print_json({"a": 1})
    console.prepare_streams()
    console.flush_streams()


def test_any_text_can_be_printed_where_the_encoding_is_ascii():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    stream.reconfigure(errors="backslashreplace")
    console.QuietConsole(file=stream, width=40).print("Zürich \udce9", markup=False)
    stream.flush()
    assert b"Z\\xfcrich \\udce9" in raw.getvalue()


def test_a_path_is_no_markup_and_steers_no_terminal():
    raw = io.StringIO()
    console.QuietConsole(file=raw, width=80).print("into [/x][red]runs\x1b[2J\u202e", soft_wrap=True)
    assert raw.getvalue() == "into [/x][red]runs\\x1b[2J\\u202e\n"


def plugin(monkeypatch, **loaders):
    points = {
        name: SimpleNamespace(name=name, value=f"somewhere:{name}", load=loader) for name, loader in loaders.items()
    }
    monkeypatch.setattr(registry, "plugins", lambda group: points)
    monkeypatch.setattr(commands, "plugins", lambda group: points)
    monkeypatch.setattr(registry, "_rivals", lambda group: {name: [point.value] for name, point in points.items()})
    own = typer.Typer(cls=Commands)
    own.callback()(lambda: None)
    return own


def raises(error):
    def loader():
        raise error

    return loader


def test_broken_commands_are_named_and_the_others_work(monkeypatch):
    def fine() -> None:
        print("fine")

    def odd(option: Nowhere) -> None:  # noqa: F821
        pass

    own = plugin(
        monkeypatch,
        missing=raises(ImportError("no module [red]x")),
        leaves=raises(SystemExit(1)),
        odd=lambda: odd,
        fine=lambda: fine,
    )
    told = CliRunner().invoke(own, ["--help"])
    assert told.exit_code == 0
    assert told.output.count("cannot be loaded") == 2
    assert CliRunner().invoke(own, ["fine"]).output == "fine\n"
    for name in ("missing", "leaves", "odd"):
        found = CliRunner().invoke(own, [name, "anything", "--at-all"])
        assert isinstance(found.exception, PluginError)
        assert name in str(found.exception)


def test_a_command_of_a_package_never_says_leaks_more(monkeypatch):
    def exits() -> None:
        raise typer.Exit(1)

    def gives() -> int:
        return 1

    own = plugin(monkeypatch, exits=lambda: exits, gives=lambda: gives, gate=lambda: exits)
    assert own(["exits"], standalone_mode=False) == 70
    assert own(["gives"], standalone_mode=False) == 70
    assert own(["gate"], standalone_mode=False) == 1
    assert commands.GATE == "gate"


@pytest.mark.parametrize("name", ["run.json", "study.json"])
def test_no_command_writes_over_a_run_or_a_search(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(StoreError, match="would be overwritten"):
        check_folder_free(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(StoreError):
        check_folder_free(tmp_path / "link")
    check_folder_free(tmp_path / "report")
    for file in (name, "cells.csv"):
        with pytest.raises(StoreError):
            check_file_free(tmp_path / file)
    check_file_free(tmp_path / "gate.xml")
    for command in (["report", str(tmp_path)], ["compare", str(tmp_path), str(tmp_path)], ["inspect", "x.png"]):
        found = CliRunner().invoke(app, [*command, "--out", str(tmp_path)])
        assert isinstance(found.exception, StoreError), command
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "link"])


def test_a_run_s_own_folders_and_a_command_s_inputs_are_kept(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    for folder in ("parts", "reconstructions", "attacks"):
        with pytest.raises(StoreError, match="belongs to a run"):
            check_folder_free(tmp_path / folder)
        with pytest.raises(StoreError, match="belongs to a run"):
            check_file_free(tmp_path / folder / "x.json")
    with pytest.raises(StoreError, match="read by this command"):
        check_file_free(tmp_path / "b.json", [tmp_path / "." / "b.json"])
    both = ["--junit", str(tmp_path / "x"), "--json", str(tmp_path / "x")]
    assert isinstance(CliRunner().invoke(app, ["gate", str(tmp_path), *both]).exception, StoreError)


def test_a_search_is_not_started_in_a_run(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    found = CliRunner().invoke(app, ["search", "photos", "--out", str(tmp_path)])
    assert isinstance(found.exception, StoreError)


def test_no_home_folder_is_one_line(monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    for name in ("LEAKGAUGE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(token_cache.Path, "home", nowhere)
    with pytest.raises(ConfigError, match="no home folder is known -- set HOME"):
        token_cache.cache_folder()


@pytest.mark.slow
def test_the_gate_keeps_its_word_without_a_console(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "reports")
    from simulated_runs import Simulation, simulated

    from leakgauge.reports.gate.baseline import baseline_of, write_baseline

    write_baseline(baseline_of(simulated(tmp_path / "base")), tmp_path / "b.json")
    Simulation(shift=2.0).write(tmp_path / "run")
    command = (
        f"{sys.executable} -m leakgauge.harness.cli gate {tmp_path}/run"
        f" --baseline {tmp_path}/b.json --junit {tmp_path}/j.xml"
    )
    for ending, variables in ((">&-", {}), ("", {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}), (">/dev/full", {})):
        (tmp_path / "j.xml").unlink(missing_ok=True)
        done = subprocess.run(f"{command} {ending}", shell=True, env={**os.environ, **variables}, check=False)
        assert done.returncode == 1
        assert (tmp_path / "j.xml").is_file()
    done = subprocess.run(["bash", "-c", f"{command} | true; exit ${{PIPESTATUS[0]}}"], check=False)
    assert done.returncode == 1
