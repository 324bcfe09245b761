"""Folders for the tests of tasks with questions: tiny LLaVAs with random weights, and windows of photographs."""

import io
import sys
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from leakgauge.benchmarks.tasks.public_questions.gqa import SHORT_ANSWER
from leakgauge.benchmarks.tasks.public_questions.scienceqa import DIRECTLY
from leakgauge.benchmarks.victims.loading.llava_model import LLAVA_PROMPT
from leakgauge.benchmarks.victims.scenes_llava import scenes_llava_config
from leakgauge.benchmarks.victims.scenes_tokenizer import BOS, EOS, EOS_ID, IMAGE, PAD, PAD_ID, SPECIAL, UNKNOWN

SIDE = 64
_QUESTIONS = "is the sky dark blue what colour cat left of dog ? yes no"
_SAID = f"{LLAVA_PROMPT.replace(IMAGE, '')} {SHORT_ANSWER} {DIRECTLY} {_QUESTIONS}"
WORDS = sorted({word for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(_SAID)} | set("ABCDE"))
VOCABULARY = (*SPECIAL, *WORDS)


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens(list(SPECIAL))
    special = {"pad_token": PAD, "bos_token": BOS, "eos_token": EOS, "unk_token": UNKNOWN}
    return PreTrainedTokenizerFast(tokenizer_object=words, additional_special_tokens=[IMAGE], **special)


def config(kind: type = LlavaConfig):
    """The layout of the shipped LLaVA, with weights so wide that answers depend on image and question."""
    made = scenes_llava_config()
    made.text_config.vocab_size = len(VOCABULARY)
    made.text_config.num_hidden_layers = made.vision_config.num_hidden_layers = 2
    made.text_config.initializer_range = 0.2
    if kind is LlavaConfig:
        return made
    grid = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    made.text_config.max_position_embeddings = 512
    return LlavaNextConfig(
        vision_config=made.vision_config,
        text_config=made.text_config,
        image_token_index=made.image_token_id,
        image_grid_pinpoints=grid,
    )


def save_llava(folder: Path, kind: type = LlavaConfig) -> Path:
    torch.manual_seed(0)
    build = LlavaForConditionalGeneration if kind is LlavaConfig else LlavaNextForConditionalGeneration
    model = build(config(kind))
    torch.nn.init.normal_(model.model.multi_modal_projector.linear_2.weight, std=0.5)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = PAD_ID, EOS_ID
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def windows(count: int, suffix: str = "JPEG") -> list[bytes]:
    """Windows of 96 x 72 px of photographs that do not overlap, as files."""
    found = []
    for scene in ("coffee.png", "astronaut.png", "chelsea.png", "rocket.jpg"):
        with (files("skimage") / "data" / scene).open("rb") as stream:
            image = Image.open(stream).convert("RGB")
        for top in range(0, image.height - 71, 72):
            for left in range(0, image.width - 95, 96):
                out = io.BytesIO()
                image.crop((left, top, left + 96, top + 72)).save(out, suffix)
                found.append(out.getvalue())
    return found[:: len(found) // count][:count]


class Rows(list):
    """A split of a data set as the library ``datasets`` hands it out, as far as it is used."""

    @property
    def column_names(self) -> list[str]:
        return list(self[0])

    def __getitem__(self, key):
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

    def cast_column(self, name: str, kind: str) -> "Rows":
        assert (name, kind) == ("image", "encoded")
        return self


def pose_as_datasets(monkeypatch, splits: dict) -> None:
    """Puts a stand-in for the library ``datasets`` in place: ``splits`` by name, configuration and split."""

    def load_dataset(name, config, *, split):
        return splits[name, config, split]

    def image(*, decode):
        assert not decode
        return "encoded"

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset, Image=image))
