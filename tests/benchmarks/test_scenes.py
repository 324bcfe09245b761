"""Scenes: drawn as described, apart in all splits, and balanced in what they are asked and what they hide."""

import math
from collections import Counter, defaultdict
from itertools import combinations

import numpy as np
import pytest
import torch
from scene_answers import answer_from_text

from leakgauge.benchmarks.tasks.drawn_scenes.questions import ANSWERS, KINDS, Asker, askable
from leakgauge.benchmarks.tasks.drawn_scenes.rendering import PAINTS, depth, render
from leakgauge.benchmarks.tasks.drawn_scenes.scenes import BACKGROUNDS, COLOURS, RADII, SCENE_PX, SHAPES, SIZES, TONES
from leakgauge.benchmarks.tasks.drawn_scenes.splits import (
    IMAGES,
    SPLIT_PHOTOGRAPHS,
    draw_scene,
    scene_split,
)
from leakgauge.benchmarks.tasks.photo_crops.crops import SCENES
from leakgauge.harness.measurement.near_duplicates import check_disjoint
from leakgauge.harness.scoring.attributes import informed_guess
from leakgauge.harness.values.images import SPLITS
from leakgauge.harness.values.seeding import Streams


def asked_of(split):
    found = scene_split(split)
    return [(scene, question) for scene, asked in zip(found.scenes, found.questions, strict=True) for question in asked]


def test_splits_have_their_sizes_and_share_neither_photograph_nor_image():
    for split in SPLITS:
        found = scene_split(split)
        assert len(found.images) == len(found.scenes) == len(found.questions) == IMAGES[split]
        assert found.images.pixels.shape[1:] == (3, SCENE_PX, SCENE_PX)
        assert len(set(found.images.ids)) == len(found.images)
        shown = {scene.background.photograph for scene in found.scenes} - {-1}
        assert shown == {SCENES.index(name) for name in SPLIT_PHOTOGRAPHS[split]}
    for one, other in combinations(SPLITS, 2):
        assert not set(SPLIT_PHOTOGRAPHS[one]) & set(SPLIT_PHOTOGRAPHS[other])
        assert not set(scene_split(one).images.ids) & set(scene_split(other).images.ids)


@pytest.mark.slow
def test_splits_are_disjoint_by_likeness():
    check_disjoint({split: scene_split(split).images for split in SPLITS})


def test_splits_are_the_same_every_time():
    again = scene_split.__wrapped__("calibration")
    assert again.images.ids == scene_split("calibration").images.ids
    assert again.questions == scene_split("calibration").questions


def test_things_keep_apart_and_have_words_of_their_own():
    for split in ("search", "evaluation"):
        for scene in scene_split(split).scenes:
            assert len({thing.words for thing in scene.things}) == len(scene.things) in (2, 3, 4)
            for thing in scene.things:
                assert RADII[thing.size][0] <= thing.radius <= RADII[thing.size][1]
                for place in (thing.x, thing.y):
                    assert thing.radius < place < SCENE_PX - thing.radius
            for one, other in combinations(scene.things, 2):
                assert math.hypot(one.x - other.x, one.y - other.y) > one.radius + other.radius + 1


def test_pixels_show_what_the_scene_says():
    paints = np.array([PAINTS[colour] for colour in COLOURS])
    for scene, pixels in zip(scene_split("search").scenes[:120], scene_split("search").images.pixels, strict=False):
        assert np.array_equal(render(scene), pixels.numpy())
        for thing in scene.things:
            centre = pixels[:, int(thing.y), int(thing.x)].numpy() / 255.0
            assert COLOURS[int(np.abs(paints - centre).sum(axis=1).argmin())] == thing.colour
    # The area of a shape is that of the circle, square or triangle whose corners lie on the circle around it.
    shares = {"circle": math.pi, "square": 2.0, "triangle": 3 * math.sqrt(3) / 4}
    for scene in scene_split("search").scenes[:120]:
        for thing in scene.things:
            area = (depth(thing) + 0.5).clip(0, 1).sum()
            assert area == pytest.approx(shares[thing.shape] * thing.radius**2, rel=0.06)


def test_every_answer_follows_from_the_scene_and_is_in_the_vocabulary():
    for split in SPLITS:
        for scene, question in asked_of(split):
            assert question.answer == answer_from_text(scene, question.text), question
            assert question.answer in ANSWERS


def test_every_question_that_can_be_asked_has_the_right_answer():
    for scene in scene_split("calibration").scenes:
        for kind in KINDS:
            for question in askable(scene, kind):
                assert question.kind == kind
                assert question.answer == answer_from_text(scene, question.text), question


def test_every_image_has_one_question_of_each_kind():
    for split in SPLITS:
        assert all(tuple(q.kind for q in asked) == KINDS for asked in scene_split(split).questions)


def guesses(known, tried):
    """Returns by kind and over all how often the commonest answer to the very same question is right."""
    texts, kinds, right = defaultdict(Counter), defaultdict(Counter), defaultdict(list)
    for _, question in known:
        texts[question.text][question.answer] += 1
        kinds[question.kind][question.answer] += 1
    for _, question in tried:
        best = (texts[question.text] or kinds[question.kind]).most_common(1)[0][0]
        right[question.kind].append(best == question.answer)
        right["all"].append(best == question.answer)
    return {kind: sum(hits) / len(hits) for kind, hits in right.items()}


def test_the_best_guess_from_the_question_alone_is_poor():
    reached = guesses(asked_of("attacker"), asked_of("evaluation"))
    assert reached["all"] <= 0.40, reached
    for kind, limit in {"count": 0.35, "colour": 0.25, "shape": 0.41, "relation": 0.57, "existence": 0.57}.items():
        assert reached[kind] <= limit, reached
    # Nor does the guess gain by seeing the evaluation split's own common questions.
    common = Counter(question.text for _, question in asked_of("evaluation"))
    often = [(scene, question) for scene, question in asked_of("evaluation") if common[question.text] >= 20]
    assert guesses(often, often)["all"] <= 0.45


def test_answers_are_balanced_by_kind():
    for split in ("attacker", "evaluation"):
        answers = defaultdict(Counter)
        for _, question in asked_of(split):
            answers[question.kind][question.answer] += 1
        for kind, words in (("colour", COLOURS), ("shape", SHAPES), ("relation", ("yes", "no"))):
            shares = np.array([answers[kind][word] for word in words]) / IMAGES[split]
            assert np.abs(shares * len(words) - 1).max() < 0.12, (split, kind, shares)
        assert max(answers["count"].values()) < 0.35 * IMAGES[split]


@pytest.mark.slow
def test_private_attributes_are_balanced_and_independent_of_questions_and_answers():
    for split in ("attacker", "evaluation"):
        attributes = scene_split(split).attributes()
        assert list(attributes) == ["background", "tone"]
        for name, choices in (("background", BACKGROUNDS), ("tone", TONES)):
            values = attributes[name]
            assert values.dtype == torch.int64
            assert torch.bincount(values).tolist() == [IMAGES[split] // len(choices)] * len(choices)
            for kind in KINDS:
                answers = [asked[KINDS.index(kind)].answer for asked in scene_split(split).questions]
                table = np.zeros((len(choices), len(set(answers))))
                for value, answer in zip(values.tolist(), answers, strict=True):
                    table[value, sorted(set(answers)).index(answer)] += 1
                expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
                statistic = ((table - expected) ** 2 / expected).sum()
                freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
                # Three and a half standard deviations of chi-square above its mean.
                assert statistic < freedom + 3.5 * math.sqrt(2 * freedom), (split, name, kind, statistic)


def test_a_guess_of_an_attribute_from_the_answers_is_no_better_than_chance():
    known, tried = scene_split("attacker"), scene_split("evaluation")
    for k in range(len(KINDS)):
        numbers = {pair: i for i, pair in enumerate(sorted({(a[k].text, a[k].answer) for a in known.questions}))}
        codes = torch.tensor([numbers[a[k].text, a[k].answer] for a in known.questions])
        rows = [i for i, a in enumerate(tried.questions) if (a[k].text, a[k].answer) in numbers]
        other = torch.tensor([numbers[tried.questions[i][k].text, tried.questions[i][k].answer] for i in rows])
        for name, choices in (("background", 3), ("tone", 2)):
            guess = informed_guess(
                known.attributes()[name], codes, tried.attributes()[name][torch.tensor(rows)], other, choices
            )
            assert guess.accuracy < 1 / choices + 0.08, (KINDS[k], name, guess)


def test_no_question_mentions_an_attribute():
    words = {*BACKGROUNDS, *TONES, "background"}
    assert not any(words & set(question.text.split()) for split in SPLITS for _, question in asked_of(split))


def test_a_scene_depends_on_its_stream_alone_and_a_question_that_cannot_be_asked_is_refused():
    one, other = (draw_scene(4, "search", Streams(3).numpy()) for _ in range(2))
    assert one == other
    assert one.background.kind == BACKGROUNDS[1]
    assert {thing.size for thing in one.things} <= set(SIZES)
    lone = one._replace(things=one.things[:1])
    with pytest.raises(ValueError, match="no question about relation"):
        Asker().ask(lone, "relation", Streams(0).numpy())
