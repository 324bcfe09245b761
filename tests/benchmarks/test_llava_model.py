"""LLaVAs from a folder, as ``save_pretrained`` writes them: loading, answering, and one clear line for mistakes."""

import importlib.util
import json
import shutil

import pytest
import torch
from llava_folders import SIDE, VOCABULARY, save_llava
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
)

from leakgauge.benchmarks.victims.loading.llava_model import (
    LLAVA_PROMPT,
    MISTRAL_PROMPT,
    VICUNA_PROMPT,
    llava_side,
    load_llava,
)
from leakgauge.benchmarks.victims.loading.preprocessor import CLIP
from leakgauge.harness.errors import ConfigError, DataError, LeakgaugeError
from leakgauge.harness.values.questions import ABSENT, Questions

FED = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
ASKED = ("is the sky dark ?", "what colour is the cat ?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_llava(tmp_path_factory.mktemp("models") / "tiny-llava")


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    return save_llava(tmp_path_factory.mktemp("models") / "tiny-next", LlavaNextConfig)


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of the folder that a test may spoil."""
    return shutil.copytree(folder, tmp_path / "copy")


def images(count: int = 2, px: int = SIDE) -> torch.Tensor:
    return torch.rand(count, 3, px, px, generator=torch.Generator().manual_seed(1))


def change(folder, file: str, **values) -> None:
    path = folder / file
    data = json.loads(path.read_text())
    for key, value in values.items():
        inner = data
        *parts, last = key.split("__")
        for name in parts:
            inner = inner[name]
        inner[last] = value
    path.write_text(json.dumps(data))


def test_loads_what_was_saved(folder):
    victim = load_llava(str(folder), max_new_tokens=5)
    assert victim.image_px == SIDE == llava_side(str(folder))
    assert victim.prompt == LLAVA_PROMPT
    assert (victim.mean, victim.std) == CLIP
    assert victim.name == "tiny-llava, 64 px, normalisation assumed: no preprocessor_config.json"
    assert not victim.model.training
    assert not any(parameter.requires_grad for parameter in victim.model.parameters())
    saved = load_file(folder / "model.safetensors")
    assert torch.equal(saved["language_model.lm_head.weight"], victim.model.lm_head.weight)


def test_answers_every_question_about_every_image(folder):
    victim = load_llava(str(folder), max_new_tokens=5)
    answers = victim.respond(images(), Questions((ASKED, ASKED[:1])))
    assert answers.shape == (2, 2, 5)
    assert (answers[1, 1] == ABSENT).all()
    assert not torch.equal(answers[0, 0], answers[0, 1]), "answers do not depend on the question"
    assert not torch.equal(answers[0, 0], answers[1, 0]), "answers do not depend on the image"
    assert set(victim.read([t for t in answers[0, 0].tolist() if t != ABSENT]).split()) <= set(VOCABULARY)


def test_answers_are_those_of_plain_transformers(folder):
    victim = load_llava(str(folder), max_new_tokens=5)
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    text = LLAVA_PROMPT.replace("{question}", ASKED[0]).replace("<image>", "<image>" * 64)
    inputs = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    pixels = (images(1) - torch.tensor(CLIP[0]).view(3, 1, 1)) / torch.tensor(CLIP[1]).view(3, 1, 1)
    with torch.no_grad():
        written = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pixel_values=pixels,
            do_sample=False,
            max_new_tokens=5,
        )
    expected = victim.ended(written[:, inputs["input_ids"].shape[1] :])[0]
    answered = victim.respond(images(1), Questions((ASKED[:1],)))[0, 0]
    assert answered[: len(expected)].tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_loads_as_half_floats(folder, dtype):
    victim = load_llava(str(folder), dtype=dtype, max_new_tokens=2)
    assert {parameter.dtype for parameter in victim.model.parameters()} == {getattr(torch, dtype)}
    assert dtype in victim.name
    assert victim.respond(images(), Questions((ASKED, ASKED))).shape == (2, 2, 2)
    assert victim.embed(images()).dtype == torch.float32


def test_what_decides_answers_is_hashed(folder, copied):
    first = load_llava(str(folder)).weights_hash
    assert load_llava(str(copied)).weights_hash == first
    others = [
        load_llava(str(folder), dtype="bfloat16"),
        load_llava(str(folder), max_new_tokens=3),
        load_llava(str(folder), prompt="<image> {question}"),
    ]
    (copied / "preprocessor_config.json").write_text(json.dumps(FED))
    others.append(load_llava(str(copied)))
    weights = load_file(copied / "model.safetensors")
    weights["language_model.lm_head.weight"][0, 0] += 1
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    others.append(load_llava(str(copied)))
    assert len({first, *(victim.weights_hash for victim in others)}) == 6


@pytest.mark.parametrize(
    ("file", "content"),
    [("preprocessor_config.json", FED), ("processor_config.json", {"image_processor": FED})],
)
def test_normalises_as_the_image_processor(copied, file, content):
    (copied / file).write_text(json.dumps(content))
    victim = load_llava(str(copied))
    assert (victim.mean, victim.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert victim.name == "copy, 64 px"


def test_sharded_weights_load(folder, tmp_path):
    LlavaForConditionalGeneration.from_pretrained(folder).save_pretrained(tmp_path, max_shard_size="2MB")
    for path in folder.glob("tokenizer*"):
        shutil.copy(path, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    whole, sharded = load_llava(str(folder)), load_llava(str(tmp_path))
    assert torch.equal(*(v.model.lm_head.weight for v in (whole, sharded)))
    shard = min(tmp_path.glob("*.safetensors"))
    weights = load_file(shard)
    next(iter(weights.values())).add_(1)
    save_file(weights, shard, metadata={"format": "pt"})
    assert load_llava(str(tmp_path)).weights_hash != sharded.weights_hash


def test_next_is_cut_into_tiles(tiled):
    victim = load_llava(str(tiled), max_new_tokens=2)
    assert victim.tiled
    assert victim.image_px == 2 * SIDE == llava_side(str(tiled))
    assert victim.prompt == VICUNA_PROMPT
    assert llava_side(str(tiled), image_px=96) == load_llava(str(tiled), image_px=96).image_px == 96
    assert victim.respond(images(2, 2 * SIDE), Questions((ASKED, ASKED[:1]))).shape == (2, 2, 2)


def test_next_takes_the_prompt_of_its_language_model(tiled, tmp_path):
    folder = shutil.copytree(tiled, tmp_path / "mistral")
    change(folder, "config.json", text_config__model_type="mistral")
    assert load_llava(str(folder)).prompt == MISTRAL_PROMPT
    change(folder, "config.json", text_config__model_type="qwen2")
    with pytest.raises(ConfigError, match="the chat form of this 'qwen2' is not known -- set `prompt`"):
        load_llava(str(folder))


def test_a_question_too_long_is_named(folder):
    victim = load_llava(str(folder))
    victim.check_fits(64, Questions((ASKED,)))
    with pytest.raises(
        DataError, match=r"the question 'is is .*\.\.\.' with 64 image tokens .*; the context holds 128"
    ):
        victim.check_fits(64, Questions((("is " * 60,),)))


def test_device_map_needs_accelerate(folder, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "accelerate" else find(name, *a))
    with pytest.raises(ConfigError, match=r"device_map: .* needs accelerate, .* -- pip install accelerate"):
        load_llava(str(folder), device_map="auto")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat"}, "dtype: unknown 'bfloat' -- did you mean 'bfloat16'"),
        ({"prompt": "{question}"}, "prompt: prompt '{question}' does not hold <image>"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0 is not"),
        ({"image_px": 96}, "image_px: the model takes images of 64 px, not 96"),
        ({"pretrained": True}, "is a local folder, but `pretrained: true` asks for a name on the hub"),
    ],
)
def test_options_are_checked(folder, options, message):
    with pytest.raises(ConfigError) as caught:
        load_llava(str(folder), **options)
    assert message in str(caught.value)


def _drop(file):
    return lambda folder: (folder / file).unlink()


def _weights(edit):
    def spoil(folder):
        weights = load_file(folder / "model.safetensors")
        edit(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def _tokenizers(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_drop("config.json"), "the folder holds no config.json"),
        (_drop("model.safetensors"), "the folder holds no model.safetensors"),
        (_tokenizers, "the tokenizer cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), "the config cannot be read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "the weights cannot be loaded"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("[]"), "not a mapping"),
        (_weights(lambda w: w.pop("language_model.lm_head.weight")), "'lm_head.weight' is missing"),
        (_weights(lambda w: w["language_model.lm_head.weight"].fill_(torch.nan)), "NaN or infinite values"),
        (lambda f: change(f, "config.json", image_token_index=2), "<image> is token 3 of the tokenizer, but 2"),
    ],
)
def test_a_spoiled_folder_is_one_clear_line(copied, spoil, message):
    spoil(copied)
    with pytest.raises(DataError) as caught:
        load_llava(str(copied))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_another_model_is_refused_by_name(tmp_path):
    tower = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    CLIPVisionModel(tower).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="'clip_vision_model' is no LLaVA -- take one of llava, llava_next"):
        load_llava(str(tmp_path))


def test_no_such_folder(tmp_path):
    with pytest.raises(LeakgaugeError, match="no such model folder"):
        load_llava(str(tmp_path / "none"))
