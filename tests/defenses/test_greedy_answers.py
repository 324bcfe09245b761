"""The unmodified model and the split path write answers in one way, whatever a checkpoint's generation_config asks."""

import pytest
import torch
from llava_models import clip, llava, noise_images, questions_for
from transformers import GenerationConfig

from leakgauge.benchmarks.victims.scenes_tokenizer import IMAGE_ID
from leakgauge.defenses.vqa.pipeline import VqaPipeline
from leakgauge.harness.values.questions import ABSENT
from leakgauge.harness.values.seeding import Streams

CPU = torch.device("cpu")
ASKED = {
    "sampling": {"do_sample": True, "temperature": 3.0, "top_k": 0},
    "repetition penalty": {"repetition_penalty": 50.0},
    "no token twice": {"no_repeat_ngram_size": 1},
    "beams": {"num_beams": 4, "length_penalty": -5.0},
    "a least length": {"min_new_tokens": 5},
    "a shorter answer": {"max_new_tokens": 1, "max_length": 3},
    "tokens held back": {"suppress_tokens": list(range(5, 40))},
    "a forced end": {"forced_eos_token_id": 7},
}


@pytest.fixture(scope="module")
def victim():
    made = llava(clip(32, 8, 3))
    with torch.no_grad():
        made.model.lm_head.weight[IMAGE_ID] = 0  # a random model may write it; fed back it would ask for an image
    return made


@pytest.fixture(scope="module")
def greedy(victim):
    """By hand: one token after another from the model's own logits, for the first image's questions."""
    images, questions = noise_images(3, 32), questions_for(3)
    answers = victim.respond(images.images(), questions)
    inputs = victim.vision_inputs(images.select([0]).images())
    prompts = victim.padded_prompts(type(questions)((questions.texts[0][:1],)), 16, CPU)
    ids, mask, written = prompts["input_ids"], prompts["attention_mask"], []
    with torch.no_grad():
        for _ in range(victim.max_new_tokens):
            logits = victim.model(**inputs, input_ids=ids, attention_mask=mask).logits[0, -1]
            written.append(int(logits.argmax()))
            ids = torch.cat([ids, torch.tensor([[written[-1]]])], dim=1)
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
    assert torch.equal(answers[0, 0], victim.ended(torch.tensor([written]))[0])
    return images, questions, answers


@pytest.mark.parametrize("asked", ASKED)
def test_a_generation_config_changes_no_answer_and_is_named(victim, greedy, asked, monkeypatch):
    images, questions, expected = greedy
    own = victim.model.generation_config
    stated = GenerationConfig(
        **{"eos_token_id": own.eos_token_id, "pad_token_id": own.pad_token_id, "bos_token_id": own.bos_token_id},
        **ASKED[asked],
    )
    monkeypatch.setattr(victim.model, "generation_config", stated)
    torch.manual_seed(0)
    assert torch.equal(victim.respond(images.images(), questions), expected)
    assert victim.model.generation_config is stated
    pipeline = VqaPipeline(victim, CPU)
    assert torch.equal(pipeline.respond(pipeline.transmit(images, Streams(0)), questions), expected)
    said = victim.decoding
    assert said.startswith(f"greedy, at most {victim.max_new_tokens} tokens")
    first = next(iter(ASKED[asked]))
    assert (first in said) == (not first.startswith("max_"))


def test_answers_vary_so_that_the_test_can_fail(victim, greedy):
    images, questions, expected = greedy
    assert len({tuple(row) for row in expected.flatten(0, 1).tolist()}) > 2
    assert bool((expected != ABSENT).any())
    assert victim.decoding == f"greedy, at most {victim.max_new_tokens} tokens"
    with torch.no_grad():
        prompts = victim.padded_prompts(questions, 16, CPU)
        repeated = torch.repeat_interleave(images.images(), torch.tensor(questions.counts), dim=0)
        penalised = victim.model.generate(
            **victim.vision_inputs(repeated), **prompts, repetition_penalty=50.0, max_new_tokens=5, do_sample=False
        )
    ours = expected.flatten(0, 1)[: len(penalised)]
    assert not torch.equal(victim.ended(penalised[:, prompts["input_ids"].shape[1] :]), ours)
