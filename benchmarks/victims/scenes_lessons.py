"""Batches that teach the victim of ``scenes_vqa``: several questions about an image in one sequence.

The image tokens stand first, then the questions one after another. A mask keeps each question from seeing the others,
and all questions start at the same position: what the network computes is what it computes for each question alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlavaForConditionalGeneration

from benchmarks.tasks.scene_questions import Asker, Question, askable
from benchmarks.tasks.scene_rendering import render
from benchmarks.tasks.scene_splits import draw_scene
from benchmarks.tasks.scenes import COLOURS, SCENE_PX, SHAPES, SIZES, Scene
from benchmarks.victims.scenes_llava import IMAGE_TOKENS, PATCH_PX, normalise
from benchmarks.victims.scenes_tokenizer import BOS_ID, EOS_ID, PAD_ID, VOCABULARY, word_ids

ROOM = 13
"""Tokens of the longest question with its answer: "is the large red circle left of the small blue square? yes"."""
PREFIX = 1 + IMAGE_TOKENS
TAUGHT = ("count", "count", "colour", "shape", "relation", "relation", "existence", "existence")
"""Kinds of the questions about each image of training."""
REACH_PX = 3.0
"""A patch is taken to show a thing whose edge is at most this far from the patch's centre."""


class Lesson(NamedTuple):
    """B images with K questions each.

    ``pixels`` (B, 3, 64, 64) uint8; ``tokens`` (B, K, 13) int64 questions with answers, padded on the right; ``ends``
    (B, K) int64 where the question mark stands; ``answers`` (B, K) int64 tokens; ``shown`` (B, 64, 4) int64 what each
    patch shows: size, colour and shape counted from 1, or 0 for background, and whether a thing's centre lies there.
    """

    pixels: Tensor
    tokens: Tensor
    ends: Tensor
    answers: Tensor
    shown: Tensor


def shown_by_patches(scene: Scene) -> np.ndarray:
    """Returns what each patch shows, (64, 4) int64; see ``Lesson``."""
    side = SCENE_PX // PATCH_PX
    centres = (np.arange(side) + 0.5) * PATCH_PX
    shown = np.zeros((side, side, 4), dtype=np.int64)
    edge = np.full((side, side), REACH_PX)
    for thing in scene.things:
        distance = np.hypot(centres[None, :] - thing.x, centres[:, None] - thing.y) - thing.radius
        nearer = distance < edge
        edge = np.minimum(edge, distance)
        words = (SIZES.index(thing.size), COLOURS.index(thing.colour), SHAPES.index(thing.shape))
        shown[nearer, :3] = np.array(words) + 1
    for thing in scene.things:
        shown[int(thing.y // PATCH_PX), int(thing.x // PATCH_PX), 3] = 1
    return shown.reshape(-1, 4)


def lesson(scenes: Sequence[Scene], pixels: Tensor, questions: Sequence[Sequence[Question]]) -> Lesson:
    """Packs B scenes, their pixels (B, 3, 64, 64) and their K questions each."""
    tokens = torch.full((len(scenes), len(questions[0]), ROOM), PAD_ID)
    ends = torch.zeros(tokens.shape[:2], dtype=torch.long)
    answers = torch.zeros_like(ends)
    for i, asked in enumerate(questions):
        for k, question in enumerate(asked):
            ids = word_ids(question.text)
            answer = VOCABULARY.index(question.answer)
            tokens[i, k, : len(ids) + 1] = torch.tensor([*ids, answer])
            ends[i, k], answers[i, k] = len(ids) - 1, answer
    shown = torch.from_numpy(np.stack([shown_by_patches(scene) for scene in scenes]))
    return Lesson(pixels, tokens, ends, answers, shown)


def draw_lesson(count: int, asker: Asker, rng: np.random.Generator) -> Lesson:
    """Draws ``count`` fresh scenes on the attacker's photographs, with questions of the kinds in TAUGHT."""
    scenes: list[Scene] = []
    questions: list[list[Question]] = []
    while len(scenes) < count:
        scene = draw_scene(int(rng.integers(6)), "attacker", rng)
        if all(askable(scene, kind) for kind in set(TAUGHT)):
            scenes.append(scene)
            questions.append([asker.ask(scene, kind, rng) for kind in TAUGHT])
    return lesson(scenes, torch.from_numpy(np.stack([render(scene) for scene in scenes])), questions)


def draw_views(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draws fresh scenes without questions: pixels (B, 3, 64, 64) uint8, and what patches show, (B, 64, 4) int64."""
    scenes = [draw_scene(int(rng.integers(6)), "attacker", rng) for _ in range(count)]
    pixels, shown = np.stack([render(scene) for scene in scenes]), np.stack([shown_by_patches(s) for s in scenes])
    return torch.from_numpy(pixels), torch.from_numpy(shown)


@cache
def packed_mask(questions: int) -> tuple[Tensor, Tensor]:
    """Returns the mask (1, 1, T, T) to add to attention scores and the positions (1, T) of a packed sequence."""
    length = PREFIX + questions * ROOM
    part = torch.cat([torch.zeros(PREFIX, dtype=torch.long), 1 + torch.arange(questions).repeat_interleave(ROOM)])
    seen = (part[:, None] == part[None, :]) | (part[None, :] == 0)
    seen &= torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(length, length).masked_fill(~seen, torch.finfo(torch.float32).min / 2)
    positions = torch.cat([torch.arange(PREFIX), (PREFIX + torch.arange(ROOM)).repeat(questions)])
    return mask[None, None], positions[None]


class Sight(nn.Module):
    """Reads from each image token what its patch shows; helps training along and is not shipped."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.choices = (1 + len(SIZES), 1 + len(COLOURS), 1 + len(SHAPES), 2)
        self.read = nn.Linear(width, sum(self.choices))

    def loss(self, features: Tensor, shown: Tensor) -> Tensor:
        """Returns the mean cross-entropy of features (B, 64, width) against what is shown, (B, 64, 4)."""
        parts = self.read(features).float().split(self.choices, dim=-1)
        losses = [cross_entropy(part.flatten(0, 1), shown[..., i].flatten()) for i, part in enumerate(parts)]
        return torch.stack(losses).mean()


def image_features(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Returns the image tokens (B, 64, width) that the language model is given for uint8 pixels (B, 3, 64, 64)."""
    output = model.model.get_image_features(pixel_values=normalise(pixels / 255.0))
    return torch.stack(list(output.pooler_output))


def answer_logits(model: LlavaForConditionalGeneration, batch: Lesson) -> tuple[Tensor, Tensor]:
    """Runs a packed batch.

    Returns:
        Logits (B, K, 2, vocabulary) of the answer and of the end after it, and image features (B, 64, width).
    """
    inner = model.model
    features = image_features(model, batch.pixels)
    count, questions, room = batch.tokens.shape
    embed = inner.get_input_embeddings()
    start = embed(torch.full((count, 1), BOS_ID))
    asked = embed(batch.tokens).flatten(1, 2)
    mask, positions = packed_mask(questions)
    states = inner.language_model(
        inputs_embeds=torch.cat([start, features.to(start.dtype), asked], dim=1),
        attention_mask=mask,
        position_ids=positions,
        use_cache=False,
    ).last_hidden_state
    at = PREFIX + torch.arange(questions)[None, :, None] * room + batch.ends[..., None] + torch.arange(2)
    picked = states[torch.arange(count)[:, None, None], at]
    return model.lm_head(picked), features


def answer_loss(logits: Tensor, batch: Lesson) -> Tensor:
    """Returns the mean cross-entropy of the answers plus that of the ends; nothing else is learnt from."""
    answers = cross_entropy(logits[:, :, 0].flatten(0, 1).float(), batch.answers.flatten())
    ends = torch.full_like(batch.answers, EOS_ID)
    return answers + cross_entropy(logits[:, :, 1].flatten(0, 1).float(), ends.flatten())
