"""Data sets of questions from a folder and from the hub: what is found, and one clear line for every mistake."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from gqa_folders import COUNT, content, every_question, save_gqa
from llava_folders import Rows, pose_as_datasets, save_llava, windows

from leakgauge.benchmarks.tasks.public_questions.gqa import HUB_IMAGES, HUB_NAME, HUB_QUESTIONS, QUESTIONS, Gqa
from leakgauge.harness.errors import ConfigError, DataError, LeakgaugeError
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.images import SPLITS


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(save_llava(tmp_path_factory.mktemp("models") / "tiny-llava"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_gqa(tmp_path_factory.mktemp("gqa"))


@pytest.fixture(scope="module")
def task(folder, model) -> Gqa:
    return Gqa(str(folder), model, max_new_tokens=4)


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    return shutil.copytree(folder, tmp_path / "gqa")


def test_questions_may_lie_in_a_subfolder(copied, model):
    (copied / "questions").mkdir()
    (copied / QUESTIONS).rename(copied / "questions" / QUESTIONS)
    assert len(every_question(Gqa(str(copied), model))) == len(content())


def test_missing_images_are_named_or_left_out(copied, model):
    for name in ("n7", "n10"):
        (copied / "images" / f"{name}.jpg").unlink()
    with pytest.raises(DataError) as caught:
        Gqa(str(copied), model).split("search")
    assert "the image images/n7.jpg is missing, and 1 more (7 questions)" in str(caught.value)
    task = Gqa(str(copied), model, skip_missing=True)
    assert len(every_question(task)) == len(content()) - 7
    assert task.left_out["without image"] == 7


def test_no_images_at_all(copied, model):
    shutil.rmtree(copied / "images")
    with pytest.raises(DataError, match="no image is there for 73 questions"):
        Gqa(str(copied), model, skip_missing=True).split("search")


def test_names_never_lead_out_of_the_folder(copied, model):
    (copied.parent / "outside.jpg").write_bytes(windows(1)[0])
    (copied / QUESTIONS).write_text(json.dumps({"1": next(iter(content().values())) | {"imageId": "../../outside"}}))
    with pytest.raises(DataError, match=r"the image images/\.\./\.\./outside\.jpg is missing"):
        Gqa(str(copied), model).split("search")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"question": " "}, "question '1' has an empty text"),
        ({"answer": ""}, "question '1' has an empty answer"),
        ({"types": {"structural": ""}}, "question '1' has an empty kind"),
        ({"types": {}}, "question '1' has structural = None, not str"),
        ({"question": 5}, "question '1' has question = 5, not str"),
        ({"imageId": None}, "question '1' has imageId = None, not str"),
    ],
)
def test_a_spoiled_question_is_named(copied, model, values, message):
    row = next(iter(content().values()))
    (copied / QUESTIONS).write_text(json.dumps({"1": row | values}))
    with pytest.raises(DataError) as caught:
        Gqa(str(copied), model).split("search")
    assert message in str(caught.value)
    assert QUESTIONS in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"1": {', "cannot be read as JSON"),
        ("[1, 2]", "the file holds no mapping"),
        ("{}", "no question is about an image"),
        ('{"1": 2}', "question '1' is no mapping"),
    ],
)
def test_a_spoiled_file_is_one_clear_line(copied, model, text, message):
    (copied / QUESTIONS).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        Gqa(str(copied), model).split("search")
    assert "\n" not in str(caught.value)


def test_a_broken_image_is_named(copied, model):
    (copied / "images" / "n4.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"the image images/n4\.jpg cannot be decoded"):
        Gqa(str(copied), model).split("search")


def test_no_questions_file(copied, model):
    (copied / QUESTIONS).unlink()
    with pytest.raises(DataError, match=f"the folder holds no {QUESTIONS} nor questions/{QUESTIONS}"):
        Gqa(str(copied), model).split("search")


def on_hub() -> dict:
    images = Rows({"id": f"n{i}", "image": {"bytes": data, "path": None}} for i, data in enumerate(windows(COUNT)))
    questions = Rows({"id": number, **row} for number, row in content().items())
    return {(HUB_NAME, HUB_IMAGES, "testdev"): images, (HUB_NAME, HUB_QUESTIONS, "testdev"): questions}


def test_the_hub_gives_what_the_folder_gives(task, model, monkeypatch):
    pose_as_datasets(monkeypatch, on_hub())
    hub = Gqa("hub", model)
    for name in SPLITS:
        assert hub.split(name).full_digest() == task.split(name).full_digest()
        assert hub.questions(hub.split(name)).texts == task.questions(task.split(name)).texts


def test_the_hub_needs_datasets(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError) as caught:
        Gqa("hub", model).split("search")
    assert 'pip install "leakgauge[data]"' in str(caught.value)


def test_a_hub_out_of_reach_is_one_clear_line(model, monkeypatch):
    pose_as_datasets(monkeypatch, {})
    with pytest.raises(DataError, match="lmms-lab/GQA on the hub: the data set cannot be loaded"):
        Gqa("hub", model).split("search")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "stretch"}, "fit = 'stretch' is not one of pad, crop"),
        ({"questions_per_image": 0}, "questions_per_image = 0 is not a whole number"),
        ({"per_split": {"victim": 3}}, "per_split.victim"),
        ({"per_split": {"search": 0}}, "per_split = {'search': 0}"),
        ({"dtype": "int8"}, "dtype = 'int8' is not one of float32"),
        ({"prompt": "Hello"}, "prompt 'Hello' does not hold <image>"),
        ({"skip": True}, "unknown option 'skip'"),
    ],
)
def test_options_are_checked_at_once(folder, model, options, message):
    with pytest.raises(ConfigError) as caught:
        create("tasks", "gqa", {"path": str(folder), "model": model, **options})
    assert message in str(caught.value)


def test_paths_are_checked_at_once(folder, model, tmp_path):
    with pytest.raises(LeakgaugeError, match="no such folder"):
        Gqa(str(tmp_path / "none"), model)
    with pytest.raises(LeakgaugeError, match="no such model folder"):
        Gqa(str(folder), str(tmp_path / "none"))
    with pytest.raises(DataError, match="not enough for the splits"):
        Gqa(str(folder), model, per_split={"search": 99}).split("search")
