"""What runs found to be stronger than the best known is written down, the stronger kept, and what ships is sound."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
import torch
import typer
from typer.testing import CliRunner

import leakgauge.benchmarks
from leakgauge.benchmarks import best_known as update
from leakgauge.harness.errors import LeakgaugeError, StoreError
from leakgauge.harness.run import best_known as known_module
from leakgauge.harness.run import run_summary
from leakgauge.harness.run.best_known import (
    BestKnown,
    BestKnownFile,
    best_known,
    read_best_known,
)
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.exposure_content import ExposureContent, exposures_of
from leakgauge.harness.suite.planning import plan
from leakgauge.harness.suite.schema import Suite, load_suite
from leakgauge.harness.values.learning_curve import LearningCurve

DATA = {"task": "toy v1", "victim": "v1", "split_evaluation": "e", "split_calibration": "c", "split_attacker": "a"}
SUITE = Suite.model_validate(
    {
        "name": "small",
        "task": "toy",
        "operating_points": [{"name": "plain"}, {"name": "merged", "reduction": "tome"}],
        "attacks": ["flat", "weak", {"label": "strong", "name": "strong", "steps": 9}, "asked"],
        "seeds": [0, 1],
    }
)
PSNR = {"flat": 10.0, "weak": 18.0, "strong": 20.0, "asked": float("nan")}


def run_of(folder, more=0.0, verdict="conclusive", without=(), suite=SUITE, seconds=4.0, commit="c0ffee"):
    """A run whose attacks reach ``PSNR`` and, on the second seed, 1 dB more; ``without`` some (attack, seed)."""
    run, cells = RunFolder(folder), []
    for cell in plan(suite, "toy"):
        attack, seed = cell.attack.label, cell.exposure.seed
        if (attack, seed) in without:
            continue
        psnr = PSNR[attack] + (0.0 if attack == "flat" else more + seed)
        names = {"operating_point": cell.exposure.point.name, "channel": "ideal", "threat_model": "server"}
        row = {"cell": cell.key, "attack": attack, "seed": seed, "n": 5, "status": "done", "reason": "", **names}
        row |= {"verdict": "conclusive" if attack == "flat" else verdict, "attack_seconds": seconds, "task": "toy v1"}
        row |= {"psnr_db": psnr, "psnr_db_lo": psnr - 0.5, "psnr_db_hi": psnr + 0.5, "leakage": psnr - 10.0}
        cells.append(row)
        if attack == "strong":
            run.write_curve(cell.key, LearningCurve(9))
    run.write_tables(cells, [])
    run.write_manifest(
        {
            "status": "complete",
            "suite": suite.model_dump(mode="json"),
            "data": DATA,
            "attacks": {label: {"floor": label == "flat"} for label in PSNR},
            "provenance": {"commit": commit, "dirty": True, "version": "0.2.0"},
            "sessions": [{"started": "2026-11-27T08:00:00+00:00", "command": "run", "workers": 1, "commit": None}],
        }
    )
    return run


def test_the_strongest_of_every_exposure_is_written_with_its_budget(tmp_path):
    plain, merged = update.entries_of(run_of(tmp_path / "run"))
    assert (plain.operating_point, merged.operating_point) == ("plain", "merged")
    assert (plain.attack, plain.psnr_db, plain.leakage, plain.converged_db) == ("strong", 20.5, 10.5, 20.5)
    assert plain.options == {"name": "strong", "steps": 9}
    assert (plain.steps, plain.attack_seconds, plain.seeds) == (9, 4.0, (0, 1))
    assert (plain.commit, plain.version, plain.date) == ("c0ffee with changes", "0.2.0", "2026-11-27")
    assert plain.key != merged.key
    assert plain.said == "strong, 9 steps, 4 s"


def test_an_attack_that_lacks_a_seed_does_not_count(tmp_path):
    entry = update.entries_of(run_of(tmp_path / "a", without={("strong", 1)}))[0]
    assert (entry.attack, entry.psnr_db) == ("weak", 18.5)
    with pytest.raises(StoreError, match="nothing to write down"):
        update.entries_of(run_of(tmp_path / "b", without={("flat", 0), ("flat", 1), ("weak", 0), ("strong", 1)}))


def command(*arguments):
    app = typer.Typer()
    app.command()(update.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_higher_is_kept(tmp_path):
    file = tmp_path / "known.json"
    first, less, more = (run_of(tmp_path / name, add) for name, add in (("a", 0.0), ("b", -2.0), ("c", 1.5)))
    assert "+ plain (ideal, server): 20.50 dB by strong" in command(first.path, "--file", file).output
    before = file.read_bytes()
    assert "nothing here is stronger" in command(less.path, "--file", file).output
    assert file.read_bytes() == before
    assert "22.00 dB by strong, 9 steps, 4 s, was 20.50" in command(less.path, more.path, "--file", file).output
    assert {entry.psnr_db for entry in read_best_known(file).entries} == {22.0}
    assert command(more.path, "--file", file).exit_code == 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "whole or not at all"


def test_whether_a_converged_attacker_came_near_is_kept_beside_it(tmp_path):
    file = tmp_path / "known.json"
    rising = run_of(tmp_path / "rising", 0.4, verdict="inconclusive")
    command(rising.path, "--file", file)
    assert {entry.converged_db for entry in read_best_known(file).entries} == {None}
    ended = run_of(tmp_path / "ended")
    assert "a converged attacker reaches 20.50 dB of 20.90" in command(ended.path, "--file", file).output
    assert {(entry.psnr_db, entry.converged_db) for entry in read_best_known(file).entries} == {(20.9, 20.5)}


def suite_with(*attacks):
    return Suite.model_validate({**SUITE.model_dump(mode="json"), "attacks": ["flat", *attacks, "asked"]})


def longer(steps):
    return suite_with("weak", {"label": "strong", "name": "strong", "steps": steps})


def efforts_in(file):
    """What came near on the first operating point: options of attackers with their seconds."""
    entry = next(one for one in read_best_known(file).entries if one.operating_point == "plain")
    return {str(one.options.get("steps", one.attack)): one.attack_seconds for one in entry.efforts}


def test_what_attackers_took_that_came_near_adds_up_each_once(tmp_path, monkeypatch):
    monkeypatch.setitem(PSNR, "weak", 19.0)  # 1 dB less than the strongest
    file, first = tmp_path / "known.json", run_of(tmp_path / "first")
    command(first.path, "--file", file)
    assert efforts_in(file) == {"9": 4.0, "weak": 4.0}
    assert {entry.effort_seconds for entry in read_best_known(file).entries} == {8.0}
    before = file.read_bytes()
    assert "nothing here is stronger" in command(first.path, first.path, "--file", file).output
    again = run_of(tmp_path / "again", seconds=7.0, commit="decaf")
    assert "nothing here is stronger" in command(again.path, "--file", file).output
    assert file.read_bytes() == before, "whoever repeats an attacker searches no further"
    monkeypatch.setitem(PSNR, "strong", 19.5)
    other = run_of(tmp_path / "other", suite=longer(36), seconds=16.0)
    said = command(other.path, "--file", file).output
    assert "plain (ideal, server): attackers near 20.50 dB took 24 s, were 8" in said
    assert efforts_in(file) == {"9": 4.0, "weak": 4.0, "36": 16.0}


def test_a_label_and_seeds_make_no_other_attacker(tmp_path, monkeypatch):
    file = tmp_path / "known.json"
    command(run_of(tmp_path / "first").path, "--file", file)
    seeded = SUITE.model_copy(update={"seeds": (3,)})
    command(run_of(tmp_path / "seeded", -2.7, suite=seeded).path, "--file", file)
    assert efforts_in(file) == {"9": 4.0}
    monkeypatch.setitem(PSNR, "weak", PSNR["strong"])
    renamed = suite_with({"label": "weak", "name": "strong", "steps": 9})
    command(run_of(tmp_path / "renamed", -0.2, suite=renamed).path, "--file", file)
    assert efforts_in(file) == {"9": 4.0}


def test_when_the_best_rises_those_who_are_no_longer_near_drop_out(tmp_path, monkeypatch):
    monkeypatch.setitem(PSNR, "weak", 19.2)
    file = tmp_path / "known.json"
    command(run_of(tmp_path / "first").path, "--file", file)
    assert efforts_in(file) == {"9": 4.0, "weak": 4.0}
    monkeypatch.setitem(PSNR, "weak", 10.0)
    command(run_of(tmp_path / "more", 0.5, suite=longer(36), seconds=16.0).path, "--file", file)
    assert efforts_in(file) == {"9": 4.0, "36": 16.0}, "weak lacks 1.3 dB now"
    command(run_of(tmp_path / "most", 3.0, suite=longer(72), seconds=32.0).path, "--file", file)
    assert efforts_in(file) == {"72": 32.0}
    command(run_of(tmp_path / "late").path, "--file", file)
    assert efforts_in(file) == {"72": 32.0}


def test_an_attacker_whose_time_is_not_known_took_none(tmp_path):
    (entry, _) = update.entries_of(run_of(tmp_path / "run", seconds=float("nan")))
    assert (entry.attack_seconds, entry.efforts, entry.effort_seconds) == (None, (), 0)


def test_the_command_that_ran_a_suite_says_that_it_beats_the_best_known(tmp_path, monkeypatch, capsys):
    run = run_of(tmp_path / "run")
    known = {entry.key: entry for entry in update.entries_of(run)}
    monkeypatch.setattr(known_module, "best_known", lambda: known)
    assert run_summary.summary_of(run)["new_best_known"] == []
    lower = {"psnr_db": 19.0, "converged_db": None}
    plain = next(key for key, entry in known.items() if entry.operating_point == "plain")
    known[plain] = known[plain].model_copy(update=lower)
    assert run_summary.summary_of(run)["new_best_known"] == ["plain/ideal/server"]
    run_summary.show(run)
    said = capsys.readouterr().out
    assert "new best known, please update: strong on plain (ideal, server) reaches 20.5 dB, 1.5 dB more than" in said
    assert f"python -m leakgauge.benchmarks.best_known {run.path}" in said
    assert "merged (ideal" not in said


def entry_data(tmp_path):
    entry = update.entries_of(run_of(tmp_path / "made"))[0]
    return entry, entry.model_dump(mode="json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda entry: {**entry, "psnr_db": "high"}, "psnr_db"),
        (lambda entry: {**entry, "psnr_db": 5.0}, "beats the strongest"),
        (lambda entry: {**entry, "more": 1}, "more"),
        (lambda entry: {**entry, "efforts": [{**entry["efforts"][0], "psnr_db": 19.4}]}, "is not near it"),
        (lambda entry: {**entry, "efforts": [{**entry["efforts"][0], "psnr_db": 20.6}]}, "is not near it"),
        (lambda entry: {**entry, "efforts": entry["efforts"] * 2}, "an effort counts twice"),
        (lambda entry: {**entry, "exposure": {**entry["exposure"], "victim": "v9"}}, "is not the hash"),
        (lambda entry: {**entry, "key": "0" * 16}, "is not the hash"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line_and_stays(tmp_path, change, said):
    file = tmp_path / "known.json"
    _, data = entry_data(tmp_path)
    file.write_text(json.dumps({"schema_version": 1, "entries": [change(data)]}))
    before = file.read_bytes()
    with pytest.raises(LeakgaugeError) as error:
        update.main([run_of(tmp_path / "run").path], file)
    assert said.split()[-1] in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 600
    assert file.read_bytes() == before


def test_a_file_of_another_version_or_with_an_exposure_twice_is_refused(tmp_path):
    file = tmp_path / "known.json"
    _, data = entry_data(tmp_path)
    for text in ({"schema_version": 2, "entries": []}, {"schema_version": 1, "entries": [data, data]}, [], {}):
        file.write_text(json.dumps(text))
        with pytest.raises(StoreError):
            read_best_known(file)


def test_what_is_written_is_read_as_it_was(tmp_path):
    entries = tuple(update.entries_of(run_of(tmp_path / "run")))
    update.write_best_known(BestKnownFile(entries=entries), tmp_path / "known.json")
    found = {entry.key: entry for entry in read_best_known(tmp_path / "known.json").entries}
    assert found == {entry.key: entry for entry in entries}


def test_what_ships_is_found_and_speaks_of_shipped_suites():
    known = best_known()
    assert files(leakgauge.benchmarks).joinpath("best_known.json").is_file()
    assert known, "the file is registered, and holds something"
    for entry in known.values():
        assert isinstance(entry, BestKnown)
        content = entry.exposure
        data = {"task": content.task, "victim": content.victim}
        data |= {f"split_{name}": digest for name, digest in content.images.items()}
        suite = load_suite(entry.suite)
        places = exposures_of(suite, data)
        # What a suite says today is still what was measured: else nobody would ever be compared with it.
        assert places[entry.operating_point, entry.channel, entry.threat_model].key == entry.key


def test_smoke_is_known_whole():
    suite = load_suite("smoke")
    known = {entry.operating_point for entry in best_known().values() if entry.suite == "smoke"}
    assert known == {point.name for point in suite.operating_points}


@pytest.mark.slow
def test_smoke_as_it_is_today_is_what_is_known():
    """Else images, victim or task have moved: run it, write that down, and take out what is known of the old."""
    planned = prepare(load_suite("smoke"), torch.device("cpu"))
    assert {exposure.key for exposure in exposures_of(planned.suite, planned.data).values()} <= best_known().keys()


def test_the_stronger_of_two_packages_counts(tmp_path, monkeypatch):
    entry, _ = entry_data(tmp_path)
    files_ = []
    for number, psnr in enumerate((21.0, 22.0, 20.9)):
        made = entry.model_copy(update={"psnr_db": psnr, "efforts": ()})
        path = tmp_path / f"{number}" / "best_known.json"
        update.write_best_known(BestKnownFile(entries=(made,)), path)
        files_.append(path.parent)
    names = {str(number): None for number in range(len(files_))}
    monkeypatch.setattr(known_module, "plugins", lambda group: names)
    monkeypatch.setattr(known_module, "load", lambda group, name: leakgauge.benchmarks)
    folders = iter(files_)
    monkeypatch.setattr(known_module, "files", lambda package: next(folders))
    assert {one.psnr_db for one in best_known.__wrapped__().values()} == {22.0}
    monkeypatch.setattr(known_module, "load", lambda group, name: print)
    with pytest.raises(LeakgaugeError, match="names no package"):
        best_known.__wrapped__()


def test_the_hash_is_of_the_content():
    content = ExposureContent(task="t", victim="v", images={"evaluation": "e"}, defense={"name": "d"}, threat_model={})
    assert content.key == content.model_copy().key
    assert content.key != content.model_copy(update={"victim": "w"}).key
