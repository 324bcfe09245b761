"""The split pipeline of a vision-language model: it is the plain model where nothing is reduced, and never crashes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from llava_models import clip, llava, llava_next, noise_images, plain_logits, questions_for, siglip, text_config
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaNextImageProcessor

from leakgauge.benchmarks.tasks.drawn_scenes.scenes_vqa import ScenesVqa
from leakgauge.defenses.vqa.fastv import FastV
from leakgauge.defenses.vqa.pipeline import VqaPipeline
from leakgauge.harness.contracts.vision_language import tiles
from leakgauge.harness.errors import ConfigError, DataError, PluginError
from leakgauge.harness.scoring.compute import measure_flops
from leakgauge.harness.suite.registry import create
from leakgauge.harness.values.questions import ABSENT, Questions
from leakgauge.harness.values.seeding import Streams

CPU = torch.device("cpu")
RNG = Streams(0, ("vqa",))

VICTIMS = {
    "llava-1.5, 336 px, 24 blocks": lambda: llava(clip(336, 14, 24)),
    "siglip tower": lambda: llava(siglip(64, 16, 4), layer=-1, strategy="full"),
    "class token kept": lambda: llava(clip(64, 16, 4), strategy="full"),
    "layer 2": lambda: llava(clip(64, 16, 4), layer=2),
    "llava-next, 2 x 2 tiles": lambda: llava_next(112),
    "llava-next, padded tiles": lambda: llava_next(112, pinpoints=((56, 112), (56, 168))),
    "the shipped one": lambda: ScenesVqa().victim(),
}


@pytest.mark.parametrize("name", VICTIMS)
def test_undefended_it_is_the_plain_model(name):
    victim = VICTIMS[name]()
    images, questions = noise_images(4, victim.image_px), questions_for(4)
    plain = plain_logits(victim, images, questions)
    answers = victim.respond(images.images(), questions)
    depth = VqaPipeline(victim, CPU).cut
    splits = [{}, {"projector_on_edge": True}] + ([] if victim.tiled else [{"cut": max(1, depth // 2)}])
    for options in splits:
        pipeline = VqaPipeline(victim, CPU, **options)
        sent = pipeline.transmit(images, RNG)
        found = pipeline.server.first_logits(sent, questions)
        torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)
        assert torch.equal(pipeline.respond(sent, questions), answers)
    assert plain.std(dim=0).max() > 1e-3
    assert bool((answers[0, 1:] == ABSENT).all())


def test_an_image_is_answered_alike_alone_and_in_company():
    victim = ScenesVqa().victim()
    images, task = ScenesVqa().split("search").select(range(12)), ScenesVqa()
    questions = task.questions(images)
    pipeline = VqaPipeline(victim, CPU, reduction={"name": "threshold", "thresholds": 0.9})
    together = pipeline.server.first_logits(pipeline.transmit(images, RNG), questions)
    alone = [
        pipeline.server.first_logits(pipeline.transmit(images.select([i]), RNG), questions.select([i]))
        for i in range(12)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_as_many_positions_as_tokens_arrived():
    victim = llava(clip(64, 16, 4))
    images, questions = noise_images(3, 64), questions_for(3)
    pipeline = VqaPipeline(victim, CPU, reduction={"name": "threshold", "thresholds": 0.5})
    sent = pipeline.transmit(images, RNG)
    assert sent.received.lengths.max() < 16
    tokens = pipeline.server.image_tokens(sent)
    rows = [
        victim.model.get_input_embeddings()(torch.tensor(part))
        for texts in questions.texts
        for text in texts
        for part in victim.text_tokens(text)
    ]
    expected = []
    for k, image in enumerate(i for i, texts in enumerate(questions.texts) for _ in texts):
        embedded = torch.cat([rows[2 * k], tokens[image], rows[2 * k + 1]])[None]
        expected.append(victim.model(inputs_embeds=embedded).logits[0, -1])
    torch.testing.assert_close(
        pipeline.server.first_logits(sent, questions), torch.stack(expected), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("name", ["class token kept", "llava-next, 2 x 2 tiles", "the shipped one"])
def test_every_reduction_is_answered(name):
    victim = VICTIMS[name]()
    images, questions = noise_images(2, victim.image_px), questions_for(2)
    merging = {"name": "threshold", "thresholds": 0.8}
    for reduction in (merging, "prumerge", {"name": "tome", "r": 3}, {"name": "random_drop", "match": merging}):
        pipeline = VqaPipeline(victim, CPU, reduction=reduction)
        sent = pipeline.transmit(images, RNG)
        output = pipeline.respond(sent, questions)
        assert output.shape == (2, 2, victim.max_new_tokens)
        flops = measure_flops(pipeline, images, sent, RNG, questions, output)
        torch.testing.assert_close(sum(flops.parts.values()), flops.total)
        assert bool((flops.parts["tower"] > 0).all())


def test_no_token_left_leaves_the_question():
    victim = llava(clip(64, 16, 4))
    images, questions = noise_images(2, 64), Questions((("how many circles are there?",),) * 2)
    pipeline = VqaPipeline(victim, CPU, channel={"name": "erasure", "loss": 1.0}, on_loss="drop")
    pipeline.prepare(images, RNG)
    sent = pipeline.transmit(images, RNG)
    assert sent.received.lengths.tolist() == [0, 0]
    found = pipeline.server.first_logits(sent, questions)
    assert torch.equal(found[0], found[1])
    before, after = victim.text_tokens("how many circles are there?")
    alone = victim.model(input_ids=torch.tensor([before + after])).logits[0, -1]
    torch.testing.assert_close(found[0], alone, atol=1e-5, rtol=1e-5)
    output = pipeline.respond(sent, questions)
    assert bool((measure_flops(pipeline, images, sent, RNG, questions, output).parts["projector"] == 0).all())


def test_an_answer_that_ends_at_once_is_empty():
    victim = llava(clip(64, 16, 4))
    images, questions = noise_images(1, 64), Questions((("what colour is the thing?",),))
    first = int(victim.respond(images.images(), questions)[0, 0, 0])
    victim.model.generation_config.eos_token_id = first
    output = VqaPipeline(victim, CPU).respond(VqaPipeline(victim, CPU).transmit(images, RNG), questions)
    assert output.tolist() == [[[ABSENT] * 5]]
    assert victim.read([]) == ""


def test_a_question_longer_than_the_context_is_named():
    victim = ScenesVqa().victim()
    text = "is the large red circle left of " * 12 + "the blue square?"
    with pytest.raises(DataError, match=r"is the large red circle.*context holds 128"):
        victim.check_fits(64, Questions((("how many circles are there?",), (text,))))
    victim.check_fits(64, ScenesVqa().questions(ScenesVqa().split("calibration")))


def test_a_question_with_an_image_token_is_refused():
    victim = ScenesVqa().victim()
    with pytest.raises(DataError, match="2 image tokens"):
        victim.text_tokens("is <image> there?")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cut": 2, "projector_on_edge": True}, "needs all 3 blocks"),
        ({"projector_on_edge": 1}, "is not true or false"),
        ({"fastv": {"layer": 3}}, "has 3 layers"),
        ({"fastv": {"layer": 0}}, "fastv = .*layer .a whole number of at least 1"),
        ({"fastv": {"keep": 1.5}}, "fastv = .*keep .a number in .0, 1"),
        ({"fastv": {"drop": 0.5}}, "drop"),
        ({"cut": 4}, "give 1 to 3"),
        ({"reducton": "none"}, "unknown option 'reducton'.*reduction"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        create("defenses", "vqa_pipeline", {"victim": llava(clip(64, 16, 4)), "device": CPU, **options})


def test_other_victims_are_refused(victim):
    with pytest.raises(ConfigError, match="answers no questions"):
        VqaPipeline(victim, CPU)
    joined = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=clip(64, 16, 4), text_config=text_config(), vision_feature_layer=[-2, -1])
    )
    base = llava(clip(64, 16, 4))
    with pytest.raises(ConfigError, match="several layers"):
        VqaPipeline(dataclasses.replace(base, model=joined), CPU)
    with pytest.raises(ConfigError, match="tiles needs all 3 blocks"):
        VqaPipeline(llava_next(112), CPU, cut=1)


def test_layouts_that_the_plain_model_reads_otherwise_are_refused():
    with pytest.raises(ConfigError, match="drops the first patch"):
        VqaPipeline(llava(siglip(64, 16, 4), layer=-1), CPU)
    kept = llava_next(112)
    kept.model.config.vision_feature_select_strategy = "full"
    with pytest.raises(ConfigError, match="leaves class tokens"):
        VqaPipeline(kept, CPU)
    windowed = llava(clip(64, 16, 4))
    windowed.model.model.language_model.config.sliding_window = 8
    with pytest.raises(ConfigError, match="sliding window"):
        VqaPipeline(windowed, CPU, fastv={"layer": 1})


def test_a_defense_that_does_not_tell_its_costs_is_refused(monkeypatch):
    victim = llava(clip(64, 16, 4))
    images, questions = noise_images(1, 64), questions_for(1)
    pipeline = VqaPipeline(victim, CPU)
    sent = pipeline.transmit(images, RNG)
    output = pipeline.respond(sent, questions)
    monkeypatch.setattr(VqaPipeline, "server_flops", lambda *_: None)
    with pytest.raises(PluginError, match="what answering a question costs"):
        measure_flops(pipeline, images, sent, RNG, questions, output)


def test_a_context_that_is_not_the_questions_is_refused():
    pipeline = VqaPipeline(llava(clip(64, 16, 4)), CPU)
    sent = pipeline.transmit(noise_images(2, 64), RNG)
    with pytest.raises(PluginError, match="questions about 2 images"):
        pipeline.respond(sent, questions_for(3))


def test_fastv_that_keeps_all_changes_nothing():
    victim = llava(clip(64, 16, 4))
    images, questions = noise_images(3, 64), questions_for(3)
    plain = VqaPipeline(victim, CPU)
    sent = plain.transmit(images, RNG)
    for layer in (1, 2):
        kept = VqaPipeline(victim, CPU, fastv={"layer": layer, "keep": 1.0})
        found = kept.server.first_logits(sent, questions)
        torch.testing.assert_close(found, plain.server.first_logits(sent, questions), atol=1e-5, rtol=1e-5)
        assert torch.equal(kept.respond(sent, questions), plain.respond(sent, questions))


def test_fastv_equals_a_slow_reference():
    """The attention that ranks is the model's own (eager), and what is dropped is masked, not removed."""
    victim = llava(clip(64, 16, 4))
    images, questions = noise_images(3, 64), questions_for(3)
    pipeline = VqaPipeline(victim, CPU, fastv={"layer": 2, "keep": 0.25})
    sent = pipeline.transmit(images, RNG)
    found = pipeline.server.first_logits(sent, questions)
    language = victim.model.model.language_model
    for row, (image, text) in enumerate((i, t) for i, texts in enumerate(questions.texts) for t in texts):
        before, after = victim.text_tokens(text)
        embed = victim.model.get_input_embeddings()
        tokens = pipeline.server.image_tokens(sent)[image]
        states = torch.cat([embed(torch.tensor(before)), tokens, embed(torch.tensor(after))])[None]
        length = states.shape[1]
        positions = torch.arange(length)[None]
        causal = torch.full((length, length), -torch.inf).triu(1)[None, None]
        rotary = language.rotary_emb(states, position_ids=positions)
        language.config._attn_implementation = "eager"
        try:
            received = torch.zeros(length)
            for number, layer in enumerate(language.layers):
                if number == 2:
                    ranked = received[len(before) : len(before) + 16].argsort(descending=True)[4:]
                    causal = causal.clone()
                    causal[..., len(before) + ranked] = -torch.inf
                    causal[..., torch.arange(length), torch.arange(length)] = 0
                normed = layer.input_layernorm(states)
                attended, weights = layer.self_attn(normed, position_embeddings=rotary, attention_mask=causal)
                received = weights.mean(dim=1)[0, -1]
                states = states + attended
                states = states + layer.mlp(layer.post_attention_layernorm(states))
        finally:
            language.config._attn_implementation = "sdpa"
        expected = victim.model.lm_head(language.norm(states))[0, -1]
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)


def test_fastv_saves_only_language():
    victim = llava(clip(64, 16, 4))
    images, questions = noise_images(2, 64), questions_for(2)
    costs = {}
    for name, fastv in (("plain", None), ("half", {"layer": 1, "keep": 0.5}), ("none", {"layer": 1, "keep": 0.0})):
        pipeline = VqaPipeline(victim, CPU, fastv=fastv)
        sent = pipeline.transmit(images, RNG)
        output = pipeline.respond(sent, questions)
        costs[name] = measure_flops(pipeline, images, sent, RNG, questions, output), sent.encoded.payload_bytes
    assert torch.equal(costs["plain"][1], costs["none"][1])
    assert torch.equal(costs["plain"][0].edge, costs["none"][0].edge)
    prefill = [costs[name][0].parts["prefill"] for name in ("none", "half", "plain")]
    assert bool((prefill[0] < prefill[1]).all() and (prefill[1] < prefill[2]).all())


@pytest.mark.parametrize("fastv", [None, FastV(layer=2, keep=0.5)])
def test_language_flops_are_those_of_the_operations_run(fastv):
    from torch.utils.flop_counter import FlopCounterMode

    victim = llava(clip(64, 16, 4))
    pipeline = VqaPipeline(victim, CPU, fastv=None if fastv is None else {"layer": fastv.layer, "keep": fastv.keep})
    images = noise_images(1, 64)
    sent = pipeline.transmit(images, RNG)
    for text in ("is there a thing?", "is the red circle left of the blue square?"):
        questions = Questions(((text,),))
        with FlopCounterMode(display=False) as counter:
            output = pipeline.respond(sent, questions)
        parts = pipeline.server_flops(sent, questions, output)
        counted = sum(value.item() for value in parts.values()) * 1e9
        assert counted == pytest.approx(counter.get_total_flops(), rel=1e-9)


def test_prefill_follows_the_closed_form():
    victim = llava(clip(64, 16, 4))
    pipeline = VqaPipeline(victim, CPU)
    sent = pipeline.transmit(noise_images(1, 64), RNG)
    questions = Questions((("is there a thing?",),))
    output = pipeline.respond(sent, questions)
    length = 16 + sum(map(len, victim.text_tokens("is there a thing?")))
    width, inner, keys, layers = 64, 96, 32, 3
    linear = 2 * (2 * width * width + 2 * width * keys + 3 * width * inner)
    expected = layers * (linear * length + 4 * length * length * width) + 2 * width * victim.model.lm_head.out_features
    assert pipeline.server_flops(sent, questions, output)["prefill"].item() * 1e9 == pytest.approx(expected)


def test_tiles_are_those_of_the_library():
    victim = llava_next(112)
    images = noise_images(1, 112)
    mean, std = list(victim.mean), list(victim.std)
    processor = LlavaNextImageProcessor(
        size={"shortest_edge": 56},
        crop_size={"height": 56, "width": 56},
        image_grid_pinpoints=victim.model.config.image_grid_pinpoints,
        image_mean=mean,
        image_std=std,
    )
    theirs = processor(images=images.pixels[0], return_tensors="pt")["pixel_values"][0]
    ours = tiles(victim.model, victim.normalise(images.images()))[0]
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours[1:], theirs[1:], atol=0.02, rtol=0)
    assert (ours[0] - theirs[0]).abs().mean() < 0.05


def test_half_precision_answers(monkeypatch):
    victim = llava(clip(64, 16, 4))
    half = dataclasses.replace(victim, model=llava(clip(64, 16, 4)).model.to(torch.bfloat16))
    images, questions = noise_images(3, 64), questions_for(3)
    pipeline = VqaPipeline(half, CPU, reduction={"name": "threshold", "thresholds": 0.9})
    assert pipeline.respond(pipeline.transmit(images, RNG), questions).shape == (3, 3, 5)
    for options in ({}, {"cut": 2}, {"projector_on_edge": True}):
        assert VqaPipeline(half, CPU, **options).edge_tokens(images.images()).tokens.dtype == torch.float32
    exact = VqaPipeline(victim, CPU)
    plain, rough = (p.server.first_logits(p.transmit(images, RNG), questions) for p in (exact, VqaPipeline(half, CPU)))
    assert torch.nn.functional.cosine_similarity(plain, rough).min() > 0.99


def test_gradients_reach_the_images():
    victim = llava(clip(64, 16, 4))
    for options in ({}, {"cut": 2}, {"projector_on_edge": True}):
        pipeline = VqaPipeline(victim, CPU, **options)
        images = noise_images(2, 64)
        pixels = images.images().requires_grad_()
        found = pipeline.edge_tokens(pixels)
        sent = pipeline.transmit(images, RNG).received
        torch.testing.assert_close(found.tokens.detach(), sent.tokens, atol=1e-5, rtol=1e-5)
        found.tokens.square().sum().backward()
        assert bool((pixels.grad.flatten(1).abs().sum(dim=1) > 0).all())
        assert all(parameter.grad is None for parameter in victim.model.parameters())
