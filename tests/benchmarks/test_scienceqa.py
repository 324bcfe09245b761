"""Task scienceqa: official files and scoring, splits by image, and one clear line for every mistake."""

import json
import shutil
import sys

import pytest
import torch
from llava_folders import SIDE, Rows, pose_as_datasets, save_llava, windows

from leakgauge.benchmarks.tasks.public_questions.scienceqa import (
    DIRECTLY,
    HUB_NAME,
    PROBLEMS,
    SPLIT_FILE,
    ScienceQa,
    chosen_letter,
)
from leakgauge.harness.errors import ConfigError, DataError
from leakgauge.harness.measurement.near_duplicates import check_disjoint
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.images import SPLITS
from leakgauge.harness.values.questions import ABSENT, Question, Questions

COUNT = 24
SUBJECTS = ("natural science", "social science", "language science")


def problem(k: int, image: str | None, split: str) -> dict:
    return {
        "question": f"What colour is the {'cat' if k % 2 else 'dog'}?",
        "choices": ["blue", "dark", "no"][: 2 + k % 2],
        "answer": k % 2,
        "hint": "The sky is blue." if k % 3 == 0 else "",
        "image": image,
        "subject": SUBJECTS[k % 3],
        "split": split,
        "task": "closed choice",
    }


def content() -> tuple[dict, dict]:
    """Problems as ScienceQA writes them: with an image, without one, and of another split."""
    problems = {str(k): problem(k, "image.png", "test") for k in range(COUNT)}
    problems |= {"100": problem(1, None, "test"), "101": problem(1, "image.png", "val")}
    return problems, {"test": [*map(str, range(COUNT)), "100"], "val": ["101"], "minitest": ["3", "100"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(save_llava(tmp_path_factory.mktemp("models") / "tiny-llava"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("scienceqa")
    for k, data in enumerate(windows(COUNT, "PNG")):
        # Both layouts are known.
        place = root / ("images/test" if k % 2 else "test") / str(k)
        place.mkdir(parents=True)
        (place / "image.png").write_bytes(data)
    problems, splits = content()
    (root / PROBLEMS).write_text(json.dumps(problems))
    (root / SPLIT_FILE).write_text(json.dumps(splits))
    return root


@pytest.fixture(scope="module")
def task(folder, model) -> ScienceQa:
    return ScienceQa(str(folder), model, max_new_tokens=4)


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "scienceqa")


def every_question(task: ScienceQa) -> list[Question]:
    return [one for name in SPLITS for image_id in task.split(name).ids for one in task.asked(image_id)]


@pytest.mark.parametrize(
    ("written", "letter"),
    [
        ("B", "B"),
        ("B. dark", "B"),
        ("B. ", "B"),
        ("The answer is B.", "B"),
        ("So: The answer is B. BECAUSE: it is.", "B"),
        ("The answer is B, dark", "B"),  # in the official pattern the full stop stands for any character
        ("The answer is Z.", "Z"),
        ("The answer is B", None),
        ("The answer is A. The answer is B.", None),
        ("the answer is B.", None),
        ("b", None),
        ("B.", None),
        ("B.dark", None),
        ("(B)", None),
        ("B) dark", None),
        ("BC", None),
        ("Z", None),
        ("F. six", None),
        ("dark", None),
        ("", None),
    ],
)
def test_letters_are_read_as_officially(written, letter):
    assert chosen_letter(written) == letter


@pytest.mark.parametrize(
    ("written", "right"),
    [("B", True), (" B\n", True), ("B. dark", True), ("A", False), ("E", False), ("dark", False), ("", False)],
)
def test_what_names_no_letter_or_another_is_wrong(task, written, right):
    assert task.is_right(written, Question("?", "B", "natural science")) is right


def test_the_text_is_hint_question_choices_and_how_to_answer(task):
    texts = {one.text for one in every_question(task)}
    assert f"Context: The sky is blue.\nWhat colour is the dog?\nA. blue\nB. dark{DIRECTLY}" in texts
    assert f"What colour is the cat?\nA. blue\nB. dark\nC. no{DIRECTLY}" in texts


def test_splits_divide_the_images_of_the_official_split(task):
    assert {name: len(task.split(name)) for name in SPLITS} == {
        "attacker": 16,
        "calibration": 2,
        "search": 2,
        "evaluation": 4,
    }
    check_disjoint({name: task.split(name) for name in SPLITS})
    asked = every_question(task)
    assert len(asked) == COUNT
    assert {one.kind for one in asked} == set(SUBJECTS)
    assert {one.answer for one in asked} == {"A", "B"}
    assert task.input_px() == SIDE


def test_problems_that_share_an_image_are_asked_about_one(copied, model):
    shutil.copy(copied / "images" / "test" / "3" / "image.png", copied / "images" / "test" / "5" / "image.png")
    task = ScienceQa(str(copied), model)
    assert sorted(len(task.asked(i)) for n in SPLITS for i in task.split(n).ids) == [1] * (COUNT - 2) + [2]
    assert task.left_out["copies"] == 1


def test_another_official_split(copied, model):
    task = ScienceQa(str(copied), model, split="val")
    with pytest.raises(DataError, match=r"the image images/val/101/image\.png is missing"):
        task.split("search")
    with pytest.raises(DataError, match="1 usable images are not enough"):
        ScienceQa(str(copied), model, split="minitest").split("search")
    with pytest.raises(ConfigError, match="has no split 'tests' -- did you mean 'test'"):
        ScienceQa(str(copied), model, split="tests").split("search")


def test_answers_through_the_victim(task):
    images = task.split("attacker").select(range(4))
    questions, victim = task.questions(images), task.victim()
    victim.check_fits(victim.image_tokens(images.images()[:1]), questions)
    output, target = victim.respond(images.images(), questions), task.target(images)
    assert output.shape == (4, 1, 4)
    assert set(task.by_kind(output, target)) <= set(SUBJECTS)
    said = torch.full_like(output, ABSENT)
    said[:, 0, 0] = victim.tokenizer.convert_tokens_to_ids("A")
    right = [float(task.asked(image_id)[0].answer == "A") for image_id in images.ids]
    assert task.quality(said, target).tolist() == right


def test_a_question_too_long_is_named(copied, model):
    problems, _ = content()
    problems["3"]["hint"] = "sky " * 80
    (copied / PROBLEMS).write_text(json.dumps(problems))
    task = ScienceQa(str(copied), model)
    asked = Questions(tuple(texts for name in SPLITS for texts in task.questions(task.split(name)).texts))
    with pytest.raises(DataError, match=r"the question 'Context: sky .*' with 64 image tokens"):
        task.victim().check_fits(64, asked)


def test_missing_images_are_named_or_left_out(copied, model):
    shutil.rmtree(copied / "images" / "test" / "7")
    with pytest.raises(DataError, match=r"the image images/test/7/image.png is missing \(1 questions\)"):
        ScienceQa(str(copied), model).split("search")
    task = ScienceQa(str(copied), model, skip_missing=True)
    assert len(every_question(task)) == COUNT - 1
    assert task.left_out["without image"] == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"question": ""}, "question '3' has an empty text"),
        ({"subject": ""}, "question '3' has an empty kind"),
        ({"answer": 3}, "question '3' has answer 3 of 3 choices"),
        ({"answer": "B"}, "question '3' has answer = 'B', not int"),
        ({"answer": True}, "question '3' has answer = True, not int"),
        ({"choices": ["one"]}, "question '3' has the choices ['one'], not 2 to 5 texts"),
        ({"choices": ["a", ""]}, "not 2 to 5 texts"),
        ({"choices": list("abcdef")}, "not 2 to 5 texts"),
    ],
)
def test_a_spoiled_question_is_named(copied, model, values, message):
    problems, _ = content()
    problems["3"] |= values
    (copied / PROBLEMS).write_text(json.dumps(problems))
    with pytest.raises(DataError) as caught:
        ScienceQa(str(copied), model).split("search")
    assert message in str(caught.value)


@pytest.mark.parametrize("file", [PROBLEMS, SPLIT_FILE])
def test_a_spoiled_or_missing_file_is_one_clear_line(copied, model, file):
    (copied / file).write_text("{")
    with pytest.raises(DataError, match=f"{file}: cannot be read as JSON"):
        ScienceQa(str(copied), model).split("search")
    (copied / file).unlink()
    with pytest.raises(DataError, match=f"the folder holds no {file}"):
        ScienceQa(str(copied), model).split("search")


def test_a_problem_that_is_not_there_is_named(copied, model):
    problems, _ = content()
    del problems["5"]
    (copied / PROBLEMS).write_text(json.dumps(problems))
    with pytest.raises(DataError, match="question '5' is missing"):
        ScienceQa(str(copied), model).split("search")


def test_the_hub_gives_what_the_folder_gives(task, model, monkeypatch):
    problems, splits = content()
    pictures = windows(COUNT, "PNG")
    rows = Rows(
        problems[number] | {"image": {"bytes": pictures[int(number)]} if problems[number]["image"] else None}
        for number in splits["test"]
    )
    pose_as_datasets(monkeypatch, {(HUB_NAME, None, "test"): rows})
    hub = ScienceQa("hub", model)
    for name in SPLITS:
        assert hub.split(name).full_digest() == task.split(name).full_digest()
        assert hub.questions(hub.split(name)).texts == task.questions(task.split(name)).texts


def test_the_hub_needs_datasets_and_a_split_it_has(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError) as caught:
        ScienceQa("hub", model).split("search")
    assert 'pip install "leakgauge[data]"' in str(caught.value)
    with pytest.raises(ConfigError, match="split: unknown 'minitest'"):
        ScienceQa("hub", model, split="minitest")


def test_is_registered(folder, model):
    task = create("tasks", "scienceqa", {"path": str(folder), "model": model, "fit": "crop", "split": "test"})
    assert isinstance(task, ScienceQa)
    assert (task.fit, task.official_split) == ("crop", "test")
