"""Attackers that see nothing leak nothing: on real crops, as tables are assembled and reports read them."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from simulated_runs import suite_of

from leakgauge.benchmarks.studies.blind_guesses import centres, greys, tints
from leakgauge.harness.scoring.leakage import unrelated
from leakgauge.harness.scoring.reconstruction import Psnr
from leakgauge.harness.store.assembly import Assembler
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.planning import plan
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.seeding import Streams
from leakgauge.reports.analysis.operating_points import point_rows
from leakgauge.reports.analysis.run import load_runs
from tests.harness.made_records import record

ATTACKERS = (1, 4, 8)


@functools.cache
def crops():
    task = create("tasks", "photos", {}, where="task")
    return task.split("evaluation").evenly_spaced(280), task.split("attacker").evenly_spaced(384).images()


def reported(folder, guesses):
    """Returns the headline of a run whose attackers each answer one picture, whatever they are sent."""
    evaluation, own = crops()
    originals, others = evaluation.images(), unrelated(evaluation.groups.numpy(), Streams(0, ("others",)))
    bright = own.mean(dim=(1, 2, 3)) > 0.5
    answers = {"flat": own.mean(dim=0), "bright": own[bright].mean(dim=0)}
    answers |= {f"blind_{k}": guess for k, guess in enumerate(guesses)}
    suite = suite_of(attacks=list(answers), points=("plain",))
    records = []
    for cell in plan(suite, "photos"):
        rebuilt = answers[cell.attack.label].expand_as(originals)
        scores = {"psnr_db": Psnr().score(originals, rebuilt), "permuted_psnr_db": None}
        scores["permuted_psnr_db"] = Psnr().score(originals, rebuilt[torch.from_numpy(others)])
        identity = {"cell": cell.key, "operating_point": "plain", "channel": cell.exposure.channel.label}
        identity |= {"attack": cell.attack.label, "threat_model": cell.exposure.threat_model.name}
        part = {"identity": identity, "scores": {name: values.tolist() for name, values in scores.items()}}
        records.append(record({**part, "floor": not cell.attack.label.startswith("blind")}))
    run = RunFolder(folder)
    stated = {label: {"floor": not label.startswith("blind")} for label in answers}
    run.write_manifest({"status": "complete", "suite": suite.model_dump(mode="json"), "attacks": stated})
    tables = Assembler(evaluation, "plain", 0).tables(records)
    run.write_tables(tables.cells, tables.images)
    (row,) = point_rows(load_runs([run])[0])
    return row


@pytest.mark.parametrize("count", ATTACKERS)
@pytest.mark.parametrize("guess", [centres, tints])
def test_zero_information_reads_zero(tmp_path, guess, count):
    row = reported(tmp_path / "run", guess(crops()[1], count))
    assert row["strongest_leakage_lo"] <= 0 <= row["strongest_leakage_hi"], row["strongest_leakage"]


@pytest.mark.parametrize("count", ATTACKERS)
def test_greys_read_no_more_than_zero(tmp_path, count):
    assert reported(tmp_path / "run", greys(crops()[1], count))["strongest_leakage_lo"] <= 0


@pytest.mark.parametrize("count", ATTACKERS[1:])
@pytest.mark.parametrize("guess", [centres, greys])
def test_who_picks_by_image_seems_to_leak_and_as_many_blind_guesses_seem_to_as_well(tmp_path, guess, count):
    row = reported(tmp_path / "run", guess(crops()[1], count))
    assert row["oracle_leakage"] > 1
    assert row["oracle_leakage_lo"] > 0
    assert row["blind_leakage"] == pytest.approx(row["oracle_leakage"], abs=1e-6), "a constant guess is never permuted"
    assert np.isfinite([row["blind_leakage_lo"], row["blind_leakage_hi"]]).all()
