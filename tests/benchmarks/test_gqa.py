"""Task gqa: official scoring, splits by image, questions of each, and answers through the victim."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from gqa_folders import ASKED, COUNT, content, every_question, save_gqa
from llava_folders import SIDE, save_llava
from PIL import Image
from transformers import LlavaNextConfig

from leakgauge.benchmarks.tasks.public_questions.gqa import QUESTIONS, SHORT_ANSWER, Gqa, normalise_answer
from leakgauge.benchmarks.tasks.public_questions.square_images import PAD_COLOUR
from leakgauge.harness.contracts.vision_language import VisionLanguageVictim
from leakgauge.harness.measurement.near_duplicates import check_disjoint
from leakgauge.harness.values.images import SPLITS
from leakgauge.harness.values.questions import ABSENT, Question


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


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("yes", True),
        ("Yes", True),
        ("YES.", True),
        (" yes. \n", True),
        ("yes...", True),
        ("yes .", False),  # the official conversion leaves the blank
        ("yes!", False),
        ("yes, it is", False),
        ("Yes, it is.", False),
        ("y", False),
        ("", False),
        (".", False),
        ("no", False),
    ],
)
def test_answers_are_normalised_as_officially(task, written, right):
    assert task.is_right(written, Question("?", "yes", "verify")) is right


def test_normalised_answers():
    assert normalise_answer(" The Cat. ") == "the cat"
    assert normalise_answer("U.S.A.") == "u.s.a"
    assert normalise_answer("...") == ""


def test_right_answers_are_compared_in_lower_case(task):
    assert task.is_right("blue", Question("?", "Blue", "query"))


def test_splits_divide_images_with_all_their_questions(task):
    sizes = {name: len(task.split(name)) for name in SPLITS}
    assert sizes == {"attacker": 18, "calibration": 3, "search": 3, "evaluation": 6}
    check_disjoint({name: task.split(name) for name in SPLITS})
    asked = every_question(task)
    assert len(asked) == len(content())
    assert {one.kind for one in asked} == {"verify", "query", "choose"}
    assert all(one.text.endswith("?" + SHORT_ANSWER) for one in asked)
    assert task.left_out == {"without image": 0, "copies": 0, "surplus": 0}
    assert task.split("attacker").pixels.shape == (18, 3, SIDE, SIDE)
    # The bars around padded images must not make them look alike.
    groups = torch.cat([task.split(name).groups for name in SPLITS])
    assert len(groups.unique()) == COUNT


def test_names_of_images_do_not_decide_splits(folder, model, copied, task):
    for i in range(COUNT):
        (copied / "images" / f"n{i}.jpg").rename(copied / "images" / f"m{COUNT - i}.jpg")
    renamed = {k: row | {"imageId": f"m{COUNT - int(row['imageId'][1:])}"} for k, row in content().items()}
    (copied / QUESTIONS).write_text(json.dumps(renamed))
    other = Gqa(str(copied), model)
    for name in SPLITS:
        assert other.split(name).digest() == task.split(name).digest()
        assert other.questions(other.split(name)).texts == task.questions(task.split(name)).texts


def test_questions_come_by_identifier_and_are_thinned_evenly(folder, model, task):
    full = next(asked for i in task.split("attacker").ids if len(asked := task.asked(i)) == 4)
    assert [one.text for one in full] == [f"{text}{SHORT_ANSWER}" for text, _, _ in reversed(ASKED)]
    thin = Gqa(str(folder), model, questions_per_image=2)
    capped = {image_id: thin.asked(image_id) for name in SPLITS for image_id in thin.split(name).ids}
    assert {len(asked) for asked in capped.values()} == {1, 2}
    image_id = next(i for i in capped if task.asked(i) == full)
    assert capped[image_id] == (full[0], full[3])
    assert thin.left_out["questions beyond the cap"] == len(content()) - sum(map(len, capped.values()))


def test_copies_of_an_image_become_one(copied, model):
    data = content()
    shutil.copy(copied / "images" / "n0.jpg", copied / "images" / "copy.jpg")
    data["7"] = data["9000"] | {"imageId": "copy", "question": "What is it?", "answer": "sky"}
    data["8"] = data["9000"] | {"imageId": "copy"}
    (copied / QUESTIONS).write_text(json.dumps(data))
    task = Gqa(str(copied), model)
    asked = next(
        asked for n in SPLITS for i in task.split(n).ids if len(asked := task.asked(i)) > 1 and "it" in asked[0].text
    )
    assert [one.answer for one in asked] == ["sky", "yes"]
    assert task.left_out["copies"] == 1
    assert sum(len(task.split(name)) for name in SPLITS) == COUNT


def test_near_duplicates_share_a_split_and_a_group(copied, model):
    data = content()
    Image.open(copied / "images" / "n1.jpg").save(copied / "images" / "again.jpg", quality=60)
    data["7"] = data["9000"] | {"imageId": "again"}
    (copied / QUESTIONS).write_text(json.dumps(data))
    task = Gqa(str(copied), model)
    check_disjoint({name: task.split(name) for name in SPLITS})
    shared = [torch.unique(task.split(name).groups, return_counts=True)[1].max().item() for name in SPLITS]
    assert sorted(shared) == [1, 1, 1, 2]


def test_images_are_padded_or_cropped(folder, model, task):
    padded = task.split("attacker").pixels
    bars = torch.cat([padded[:, :, :5], padded[:, :, -5:]], dim=2)
    assert (bars == torch.tensor(PAD_COLOUR).view(3, 1, 1)).all()
    cropped = Gqa(str(folder), model, fit="crop").split("attacker").pixels
    assert not (cropped[:, :, :5] == torch.tensor(PAD_COLOUR).view(3, 1, 1)).all(dim=1).all()


def test_only_as_many_images_are_decoded_as_needed(folder, model, monkeypatch):
    monkeypatch.setattr("leakgauge.benchmarks.tasks.public_questions.pictured_questions.SPARE_IMAGES", 0)
    (counts := dict.fromkeys(SPLITS, 3))["attacker"] = 5
    task = Gqa(str(folder), model, per_split=counts)
    assert {name: len(task.split(name)) for name in SPLITS} == counts
    assert task.left_out["surplus"] == 1  # a tenth more than 14 is decoded


def test_answers_through_the_victim(task):
    images = task.split("attacker").select(range(6))
    questions, victim = task.questions(images), task.victim()
    assert isinstance(victim, VisionLanguageVictim)
    assert victim is task.victim()
    victim.check_fits(victim.image_tokens(images.images()[:1]), questions)
    output, target = victim.respond(images.images(), questions), task.target(images)
    most = max(questions.counts)
    assert output.shape == (6, most, 4)
    assert target.shape == (6, most)
    assert all(len(set(map(tuple, output[i, :n].tolist()))) > 1 for i, n in enumerate(questions.counts) if n > 2)
    assert [[k for k in row if k] for row in task.kinds(target)] == [
        [one.kind for one in task.asked(image_id)] for image_id in images.ids
    ]
    assert ((task.quality(output, target) >= 0) & (task.quality(output, target) <= 1)).all()
    # Where the answers written are right, the quality is 1.
    said = torch.full_like(output, ABSENT)
    for i, image_id in enumerate(images.ids):
        for k, one in enumerate(task.asked(image_id)):
            said[i, k, 0] = victim.tokenizer.convert_tokens_to_ids(one.answer.lower())
    assert task.quality(said, target).tolist() == [1.0] * 6


def test_next_takes_larger_images(folder, tmp_path):
    model = str(save_llava(tmp_path, LlavaNextConfig))
    assert Gqa(str(folder), model).input_px() == 2 * SIDE
    task = Gqa(str(folder), model, image_px=96, per_split={"search": 3})
    assert task.split("search").pixels.shape == (3, 3, 96, 96)
    assert task.victim().image_px == 96
