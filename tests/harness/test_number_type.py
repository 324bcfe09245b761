"""The number type of trainings on a CPU: measured, stable, remembered, handed on, stated. No time is asserted."""

import json
import os

import pytest
import torch

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.run.executors import run_jobs
from leakgauge.harness.store import number_type
from leakgauge.harness.store.number_type import USES, chosen_uses, facts, told, training_type
from leakgauge.harness.store.provenance import collect

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAKGAUGE_CACHE", str(tmp_path))
    monkeypatch.delenv(number_type.VARIABLE, raising=False)
    number_type._measured_once.cache_clear()
    yield
    number_type._measured_once.cache_clear()


def measured_as(monkeypatch, ratio):
    asked = []
    monkeypatch.setattr(number_type, "measure", lambda use: asked.append(use) or ratio)
    return asked


@pytest.mark.parametrize(("ratio", "expected"), [(0.04, "float32"), (1.2, "float32"), (3.0, "bfloat16")])
def test_bfloat16_is_taken_only_where_it_is_measured_to_be_clearly_faster(monkeypatch, ratio, expected):
    measured_as(monkeypatch, ratio)
    assert facts() == dict.fromkeys(USES, expected)
    assert training_type(CPU) == getattr(torch, expected)
    assert torch.is_autocast_enabled("cpu") is False
    with number_type.autocast(CPU):
        assert torch.is_autocast_enabled("cpu") == (expected == "bfloat16")
    assert collect(CPU)["training_number_types"] == facts()


def test_a_machine_is_measured_once_and_its_first_answer_stays(monkeypatch, tmp_path):
    asked = measured_as(monkeypatch, 3.0)
    first = chosen_uses()
    number_type._measured_once.cache_clear()  # another process
    measured_as(monkeypatch, 0.1)
    assert chosen_uses() == first == dict.fromkeys(USES, True)
    assert len(asked) == len(USES)
    note = next(tmp_path.glob("number_type-*.json"))
    note.write_text(json.dumps({"autocast": "yes"}))
    number_type._measured_once.cache_clear()
    assert chosen_uses() == dict.fromkeys(USES, False), "a note that is no answer is measured anew"


def test_masked_instruction_sets_are_another_machine(monkeypatch):
    plain = number_type._machine()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert number_type._machine() != plain


def test_the_variable_overrides_and_says_so_where_it_is_wrong(monkeypatch):
    measured_as(monkeypatch, 3.0)
    monkeypatch.setenv(number_type.VARIABLE, "autocast")
    assert chosen_uses() == {"autocast": True, "orthogonalise": False}
    assert told() == "autocast"
    monkeypatch.setenv(number_type.VARIABLE, "none")
    assert told() == "none"
    monkeypatch.setenv(number_type.VARIABLE, "amx")
    with pytest.raises(ConfigError, match="autocast, orthogonalise"):
        chosen_uses()


def test_the_measurement_gives_a_ratio_and_leaves_the_threads_alone():
    threads = torch.get_num_threads()
    assert all(0 < number_type.measure(use, tries=1) < 1e3 for use in USES)
    assert torch.get_num_threads() == threads


def write_choice(path):
    path.write_text(os.environ[number_type.VARIABLE])


def test_workers_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv(number_type.VARIABLE, "orthogonalise")
    paths = [tmp_path / "a", tmp_path / "b"]
    run_jobs(write_choice, [(path,) for path in paths], 2, lambda: None)
    assert [path.read_text() for path in paths] == ["orthogonalise"] * 2
