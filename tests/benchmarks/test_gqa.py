"""Task gqa: official files and scoring, splits by image, and one clear line for every mistake."""

import json
import shutil
import sys

import pytest
import torch
from llava_folders import SIDE, Rows, pose_as_datasets, save_llava, windows
from transformers import LlavaNextConfig

from benchmarks.tasks.gqa import HUB_IMAGES, HUB_NAME, HUB_QUESTIONS, QUESTIONS, SHORT_ANSWER, Gqa, normalise_answer
from benchmarks.tasks.square_images import PAD_COLOUR
from harness.contracts import SPLITS
from harness.errors import ConfigError, DataError, LeakgaugeError
from harness.questions import ABSENT, Asked
from harness.registry import create
from harness.splits import check_disjoint
from harness.vision_language import VisionLanguageVictim

COUNT = 30
ASKED = (
    ("Is the sky dark?", "yes", "verify"),
    ("What colour is the cat?", "Blue", "query"),
    ("Is the dog left of the cat?", "no", "verify"),
    ("Is the sky blue or dark?", "dark", "choose"),
)


def content() -> dict:
    """Questions as GQA writes them: one to four an image, their identifiers out of order."""
    found = {}
    for image in range(COUNT):
        for k in range(image % 4 + 1):
            text, answer, kind = ASKED[k]
            types = {"structural": kind, "semantic": "attr", "detailed": "x"}
            row = {"question": text, "answer": answer, "imageId": f"n{image}", "types": types, "fullAnswer": "It is."}
            found[f"{(9 - k) * 10 + image}{image:02}"] = row
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(save_llava(tmp_path_factory.mktemp("models") / "tiny-llava"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("gqa")
    (root / "images").mkdir()
    for i, data in enumerate(windows(COUNT)):
        (root / "images" / f"n{i}.jpg").write_bytes(data)
    (root / QUESTIONS).write_text(json.dumps(content()))
    return root


@pytest.fixture(scope="module")
def task(folder, model) -> Gqa:
    return Gqa(str(folder), model, max_new_tokens=4)


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "gqa")


def every_question(task: Gqa) -> list[Asked]:
    return [one for name in SPLITS for image_id in task.split(name).ids for one in task.asked(image_id)]


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
    assert task.is_right(written, Asked("?", "yes", "verify")) is right


def test_normalised_answers():
    assert normalise_answer(" The Cat. ") == "the cat"
    assert normalise_answer("U.S.A.") == "u.s.a"
    assert normalise_answer("...") == ""


def test_right_answers_are_compared_in_lower_case(task):
    assert task.is_right("blue", Asked("?", "Blue", "query"))


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
    from PIL import Image

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
    monkeypatch.setattr("benchmarks.tasks.pictured_questions.SPARE_IMAGES", 0)
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
        ({"fit": "stretch"}, "unknown 'stretch'"),
        ({"questions_per_image": 0}, "questions_per_image: 0 is not a whole number"),
        ({"per_split": {"victim": 3}}, "per_split.victim"),
        ({"per_split": {"search": 0}}, "per_split.search"),
        ({"dtype": "int8"}, "dtype: unknown 'int8'"),
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
