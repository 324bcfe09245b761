"""The small LLaVA: transformers' own classes, a tokenizer that knows every word, and the accuracy of its record."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from leakgauge.benchmarks.tasks.drawn_scenes.questions import ANSWERS, KINDS, Asker
from leakgauge.benchmarks.tasks.drawn_scenes.scenes import COLOURS, SHAPES, SIZES
from leakgauge.benchmarks.tasks.drawn_scenes.splits import scene_split
from leakgauge.benchmarks.victims.scenes_llava import (
    IMAGE_TOKENS,
    WEIGHTS,
    build_scenes_llava,
    load_scenes_llava,
    scenes_victim,
)
from leakgauge.benchmarks.victims.scenes_tokenizer import (
    BOS,
    BOS_ID,
    EOS_ID,
    IMAGE,
    IMAGE_ID,
    PAD,
    VOCABULARY,
    build_tokenizer,
    word_ids,
)
from leakgauge.benchmarks.victims.training.scenes_training_data import (
    TAUGHT,
    Sight,
    answer_loss,
    draw_lesson,
    hear,
    lesson,
    shown_by_patches,
)
from leakgauge.benchmarks.victims.training.training_state import load_state, save_state
from leakgauge.harness.contracts.vision_language import VisionLanguageVictim
from leakgauge.harness.errors import DataError
from leakgauge.harness.values.questions import ABSENT, Questions
from leakgauge.harness.values.seeding import Streams

VICTIMS = Path(__file__).parents[2] / "benchmarks" / "victims"


@pytest.fixture(scope="module")
def untrained() -> VisionLanguageVictim:
    torch.manual_seed(0)
    return scenes_victim(build_scenes_llava(), "none")


@pytest.fixture(scope="module")
def shipped() -> VisionLanguageVictim:
    return load_scenes_llava()


def asked(split, count):
    """Returns images, texts and answers of the first ``count`` images of a split, a row a question."""
    found = scene_split(split)
    rows = [(i, question) for i in range(count) for question in found.questions[i]]
    images = found.images.select([i for i, _ in rows]).images()
    return images, [question.text for _, question in rows], [question.answer for _, question in rows]


@torch.no_grad()
def logits(victim, images, texts):
    """Returns the logits of each answer's first token, all prompts in one padded batch."""
    prompts = victim.padded_prompts(Questions(tuple((text,) for text in texts)), IMAGE_TOKENS, images.device)
    return victim.model(pixel_values=victim.normalise(images), use_cache=False, **prompts).logits[:, -1]


def test_the_tokenizer_is_transformers_own_and_knows_every_word():
    tokenizer = build_tokenizer()
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == (PAD, BOS, "<eos>")
    assert tokenizer.convert_ids_to_tokens(list(range(len(VOCABULARY)))) == list(VOCABULARY)
    for asked_of in scene_split("evaluation").questions:
        for question in asked_of:
            ids = tokenizer(question.text)["input_ids"]
            assert ids == word_ids(question.text)
            assert tokenizer.unk_token_id not in ids
    assert all(tokenizer(answer)["input_ids"] == [VOCABULARY.index(answer)] for answer in ANSWERS)


def test_prompts_hold_a_placeholder_for_every_image_token_and_pad_on_the_left(untrained):
    texts = ["is there a red circle?", "how many things are there?"]
    encoded = untrained.padded_prompts(
        Questions((tuple(texts), ("is there a large circle left of the thing?",))), 7, torch.device("cpu")
    )
    for row, mask, text in zip(encoded["input_ids"], encoded["attention_mask"], texts, strict=False):
        padding = int((mask == 0).sum())
        assert padding > 0
        assert mask.tolist() == [0] * padding + [1] * (len(row) - padding)
        assert row[padding:].tolist() == [BOS_ID, *[IMAGE_ID] * 7, *word_ids(text)]
    assert VOCABULARY[IMAGE_ID] == IMAGE


def test_the_network_is_transformers_llava_in_the_layout_of_llava_1_5(untrained):
    model = untrained.model
    assert isinstance(model, LlavaForConditionalGeneration)
    assert model.config.vision_feature_layer == -2
    assert model.config.vision_feature_select_strategy == "default"
    features = model.get_image_features(pixel_values=torch.zeros(2, 3, 64, 64)).pooler_output
    assert [tuple(image.shape) for image in features] == [(IMAGE_TOKENS, 192)] * 2


def test_a_packed_batch_computes_what_each_question_alone_computes(untrained):
    found = scene_split("calibration")
    batch = lesson(found.scenes[:3], found.images.pixels[:3], found.questions[:3])
    with torch.no_grad():
        packed, features, _ = hear(untrained.model, batch)
    images, texts, answers = asked("calibration", 3)
    alone = torch.cat([logits(untrained, images[i : i + 1], [text]) for i, text in enumerate(texts)])
    assert features.shape == (3, IMAGE_TOKENS, 192)
    assert torch.allclose(packed[:, :, 0].flatten(0, 1), alone, atol=1e-4)
    assert torch.allclose(logits(untrained, images, texts), alone, atol=1e-4)
    assert [VOCABULARY[token] for token in batch.answers.flatten().tolist()] == answers
    with torch.no_grad():
        ids = torch.tensor([[BOS_ID, *[IMAGE_ID] * IMAGE_TOKENS, *word_ids(texts[0]), VOCABULARY.index(answers[0])]])
        output = untrained.model(input_ids=ids, pixel_values=untrained.normalise(images[:1]))
    assert torch.allclose(packed[0, 0, 1], output.logits[0, -1], atol=1e-4)


def test_lessons_show_the_attackers_photographs_and_are_the_same_every_time():
    one, other = (draw_lesson(4, Asker(), Streams(1).numpy()) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert one.tokens.shape[:2] == one.answers.shape == (4, len(TAUGHT))
    assert set(TAUGHT) == set(KINDS)


def test_patches_show_the_thing_that_lies_there():
    for scene in scene_split("calibration").scenes[:20]:
        shown = shown_by_patches(scene).reshape(8, 8, 4)
        assert shown[..., 3].sum() == len(scene.things)
        for thing in scene.things:
            there = shown[int(thing.y // 8), int(thing.x // 8)]
            words = (SIZES.index(thing.size), COLOURS.index(thing.colour), SHAPES.index(thing.shape))
            assert there.tolist() == [*np.array(words) + 1, 1]


def test_only_answers_and_the_ends_after_them_are_learnt_from(untrained):
    batch = draw_lesson(2, Asker(), Streams(2).numpy())
    logits = torch.full((*batch.answers.shape, 2, len(VOCABULARY)), -50.0)
    logits[:, :, 0].scatter_(-1, batch.answers[..., None], 50.0)
    logits[:, :, 1, EOS_ID] = 50.0
    assert float(answer_loss(logits, batch)) == pytest.approx(0.0, abs=1e-6)
    assert float(answer_loss(-logits, batch)) > 10


def test_training_goes_on_from_its_saved_state(tmp_path):
    torch.manual_seed(0)
    sights = [Sight(8), Sight(8)]
    optimisers = [torch.optim.AdamW(sight.parameters(), lr=0.01) for sight in sights]

    def step(i):
        shown = torch.zeros(1, 64, 4, dtype=torch.long)
        optimisers[i].zero_grad()
        sights[i].loss(torch.ones(1, 64, 8), shown).backward()
        optimisers[i].step()

    step(0)
    save_state(tmp_path / "state", {"sight": sights[0]}, optimisers[0], {"step": 1})
    assert load_state(tmp_path / "state", {"sight": sights[1]}, optimisers[1]) == {"step": 1}
    for i in range(2):
        step(i)
    assert torch.equal(sights[0].read.weight, sights[1].read.weight)


def test_weights_that_cannot_be_loaded_are_refused(tmp_path):
    with pytest.raises(DataError, match="missing"):
        load_scenes_llava(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_scenes_llava(tmp_path / "bad.safetensors")


def test_the_shipped_weights_are_those_of_the_record(shipped):
    record = json.loads((VICTIMS / WEIGHTS).with_suffix(".training.json").read_text())
    assert record["weights_hash"] == shipped.weights_hash
    assert (VICTIMS / WEIGHTS).stat().st_size == record["bytes"] <= 10_000_000
    reached = [point["search_all"] for point in record["curve"] if "search_all" in point]
    assert reached[-1] > reached[0]
    assert set(record["evaluation_accuracy"]) == {*KINDS, "all"}
    assert record["evaluation_accuracy"]["all"] >= 0.85


@pytest.mark.slow
def test_the_victim_answers_scenes_that_it_was_not_trained_on(shipped):
    images, texts, answers = asked("evaluation", 120)
    right = []
    for start in range(0, len(texts), 100):
        output = shipped.respond(
            images[start : start + 100], Questions(tuple((t,) for t in texts[start : start + 100]))
        )
        given = [shipped.read([token for token in row[0] if token != ABSENT]) for row in output.tolist()]
        right += [one == wanted for one, wanted in zip(given, answers[start : start + 100], strict=True)]
    assert len(right) == 600
    assert np.mean(right) >= 0.85
