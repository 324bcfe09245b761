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

from leakgauge.benchmarks.tasks.drawn_scenes.questions import KINDS, Asker, SceneQuestion, askable
from leakgauge.benchmarks.tasks.drawn_scenes.rendering import render
from leakgauge.benchmarks.tasks.drawn_scenes.scenes import COLOURS, SCENE_PX, SHAPES, SIZES, Scene, Thing
from leakgauge.benchmarks.tasks.drawn_scenes.splits import draw_scene
from leakgauge.benchmarks.victims.scenes_llava import IMAGE_TOKENS, PATCH_PX, normalise
from leakgauge.benchmarks.victims.scenes_tokenizer import BOS_ID, EOS_ID, PAD_ID, VOCABULARY, word_ids, word_list

SIDE = SCENE_PX // PATCH_PX
ROOM = 13
"""Tokens of the longest question with its answer: "is the large red circle left of the small blue square? yes"."""
PREFIX = 1 + IMAGE_TOKENS
FOUND_AFTER = 3
"""Layers of the language model after which the named things should have been found."""
TAUGHT = ("count", "colour", "shape", "relation", "relation", "relation", "existence", "existence")
"""Kinds of the questions about each image of training; relations are the hardest to learn."""
REACH_PX = 3.0
"""A patch is taken to show a thing whose edge is at most this far from the patch's centre."""


class Lesson(NamedTuple):
    """B images with K questions each.

    ``pixels`` (B, 3, 64, 64) uint8; ``tokens`` (B, K, 13) int64 questions with answers, padded on the right; ``ends``
    (B, K) int64 where the question mark stands; ``answers`` (B, K) int64 tokens; ``shown`` (B, 64, 4) int64 what each
    patch shows: size, colour and shape counted from 1, or 0 for background, and whether a thing's centre lies there;
    ``names`` (B, K, 2) int64 where the last words of up to two named things stand; ``places`` (B, K, 2, 2) int64 column
    and row of the patches where these things' centres lie, or -1 where nothing is named.
    """

    pixels: Tensor
    tokens: Tensor
    ends: Tensor
    answers: Tensor
    shown: Tensor
    names: Tensor
    places: Tensor


class Heard(NamedTuple):
    """What the network makes of a packed batch.

    ``logits`` (B, K, 2, vocabulary) of the answer and of the end after it; ``features`` (B, 64, width) the image
    tokens; ``named`` (B, K, 2, width) the states at the names, after FOUND_AFTER layers of the language model.
    """

    logits: Tensor
    features: Tensor
    named: Tensor


def named_things(scene: Scene, question: SceneQuestion) -> list[tuple[int, Thing]]:
    """Returns the things that a question names as known to be there, and where the last word of each name stands."""
    if question.kind in ("count", "existence"):
        return []
    words = word_list(question.text)
    start = 2 if question.kind == "relation" else 4
    ends = [i for i, word in enumerate(words) if word in ("left", "right", "above", "below", "?")]
    names = [words[start : ends[0]]]
    if question.kind == "relation":
        names.append(words[words.index("the", ends[0]) + 1 : ends[1]])
    found = []
    for name, end in zip(names, ends, strict=True):
        wanted = set(name) - {"thing"}
        found.append((end - 1, next(thing for thing in scene.things if wanted <= set(thing.words))))
    return found


def shown_by_patches(scene: Scene) -> np.ndarray:
    """Returns what each patch shows, (64, 4) int64; see ``Lesson``."""
    centres = (np.arange(SIDE) + 0.5) * PATCH_PX
    shown = np.zeros((SIDE, SIDE, 4), dtype=np.int64)
    edge = np.full((SIDE, SIDE), REACH_PX)
    for thing in scene.things:
        distance = np.hypot(centres[None, :] - thing.x, centres[:, None] - thing.y) - thing.radius
        nearer = distance < edge
        edge = np.minimum(edge, distance)
        words = (SIZES.index(thing.size), COLOURS.index(thing.colour), SHAPES.index(thing.shape))
        shown[nearer, :3] = np.array(words) + 1
    for thing in scene.things:
        shown[int(thing.y // PATCH_PX), int(thing.x // PATCH_PX), 3] = 1
    return shown.reshape(-1, 4)


def lesson(scenes: Sequence[Scene], pixels: Tensor, questions: Sequence[Sequence[SceneQuestion]]) -> Lesson:
    """Packs B scenes, their pixels (B, 3, 64, 64) and their K questions each."""
    tokens = torch.full((len(scenes), len(questions[0]), ROOM), PAD_ID)
    ends = torch.zeros(tokens.shape[:2], dtype=torch.long)
    answers = torch.zeros_like(ends)
    names = torch.zeros(*ends.shape, 2, dtype=torch.long)
    places = torch.full((*names.shape, 2), -1)
    for i, asked in enumerate(questions):
        for k, question in enumerate(asked):
            for n, (end, thing) in enumerate(named_things(scenes[i], question)):
                names[i, k, n] = end
                places[i, k, n] = torch.tensor([int(thing.x // PATCH_PX), int(thing.y // PATCH_PX)])
            ids = word_ids(question.text)
            answer = VOCABULARY.index(question.answer)
            tokens[i, k, : len(ids) + 1] = torch.tensor([*ids, answer])
            ends[i, k], answers[i, k] = len(ids) - 1, answer
    shown = torch.from_numpy(np.stack([shown_by_patches(scene) for scene in scenes]))
    return Lesson(pixels, tokens, ends, answers, shown, names, places)


def draw_lesson(count: int, asker: Asker, rng: np.random.Generator, kinds: Sequence[str] = TAUGHT) -> Lesson:
    """Draws ``count`` fresh scenes on the attacker's photographs, with a question of each of ``kinds``."""
    scenes: list[Scene] = []
    questions: list[list[SceneQuestion]] = []
    while len(scenes) < count:
        scene = draw_scene(int(rng.integers(6)), "attacker", rng)
        if all(askable(scene, kind) for kind in KINDS):
            scenes.append(scene)
            questions.append([asker.ask(scene, kind, rng) for kind in kinds])
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
    """Reads from each image token what its patch shows and where it lies; helps training along and is not shipped.

    Unless they are asked for it, tokens drop where they lie, and relations stay at chance.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.choices = (1 + len(SIZES), 1 + len(COLOURS), 1 + len(SHAPES), 2, SIDE, SIDE)
        self.read = nn.Linear(width, sum(self.choices))

    def loss(self, features: Tensor, shown: Tensor) -> Tensor:
        """Returns the mean cross-entropy of features (B, 64, width) against ``shown`` (B, 64, 4) and the places."""
        patches = torch.arange(SIDE * SIDE).expand(shown.shape[:2])
        wanted = [*shown.unbind(-1), patches % SIDE, patches // SIDE]
        parts = self.read(features).float().split(self.choices, dim=-1)
        losses = [cross_entropy(part.flatten(0, 1), want.flatten()) for part, want in zip(parts, wanted, strict=True)]
        return torch.stack(losses).mean()


class Guide(nn.Module):
    """Reads from the states at the names of things where these things lie; helps training along and is not shipped."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * SIDE))

    def loss(self, named: Tensor, places: Tensor) -> Tensor:
        """Returns the mean cross-entropy of states (B, K, 2, width) against ``Lesson.places``."""
        parts = self.read(named).float().unflatten(-1, (2, SIDE))
        return cross_entropy(parts.flatten(0, -2), places.flatten(), ignore_index=-1)


def image_features(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Returns the image tokens (B, 64, width) that the language model is given for uint8 pixels (B, 3, 64, 64)."""
    output = model.model.get_image_features(pixel_values=normalise(pixels / 255.0))
    return torch.stack(list(output.pooler_output))


def hear(model: LlavaForConditionalGeneration, batch: Lesson) -> Heard:
    """Runs a packed batch."""
    inner, features = model.model, image_features(model, batch.pixels)
    count, questions, room = batch.tokens.shape
    embed = inner.get_input_embeddings()
    start = embed(torch.full((count, 1), BOS_ID))
    asked = embed(batch.tokens).flatten(1, 2)
    mask, positions = packed_mask(questions)
    output = inner.language_model(
        inputs_embeds=torch.cat([start, features.to(start.dtype), asked], dim=1),
        attention_mask=mask,
        position_ids=positions,
        use_cache=False,
        output_hidden_states=True,
    )
    first = PREFIX + torch.arange(questions)[None, :, None] * room
    image = torch.arange(count)[:, None, None]
    picked = output.last_hidden_state[image, first + batch.ends[..., None] + torch.arange(2)]
    return Heard(model.lm_head(picked), features, output.hidden_states[FOUND_AFTER][image, first + batch.names])


def answer_loss(logits: Tensor, batch: Lesson) -> Tensor:
    """Returns the mean cross-entropy of the answers plus that of the ends; nothing else is learnt from."""
    answers = cross_entropy(logits[:, :, 0].flatten(0, 1).float(), batch.answers.flatten())
    ends = torch.full_like(batch.answers, EOS_ID)
    return answers + cross_entropy(logits[:, :, 1].flatten(0, 1).float(), ends.flatten())
