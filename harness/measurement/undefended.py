"""Whether the unmodified victim can do its task at all: one near chance makes every quality in a run worthless."""

from __future__ import annotations

import math
from collections import Counter

import torch

from leakgauge.harness.contracts.questions import QuestionTask
from leakgauge.harness.contracts.reading import Undefended
from leakgauge.harness.measurement.context import RunContext

NEAR_CHANCE = 0.25
"""A victim is near chance where it goes less than this share of the way from chance to all right."""
ONE_SIDED_95 = 1.645
ONE_ANSWER = 0.9
"""A victim that gives one answer to more than this share of the images tells nothing apart."""


def undefended(context: RunContext) -> Undefended:
    """Compares the unmodified victim's quality on the evaluation images with that of the best constant answer."""
    quality, count = float(context.quality_base.double().mean()), len(context.quality_base)
    chance, name = _chance(context), context.task.quality_name
    warning = _same_answers(context) if chance is None else _near(quality, chance, count, name, context.victim.name)
    return Undefended(name, quality, count, chance, warning)


def _near(quality: float, chance: float, count: int, name: str, victim: str) -> str:
    """Returns what to warn of where a quality is near chance, or cannot be told from it with so few images."""
    if chance >= 1:
        return f"all {count} evaluation images are of one class, so that {name} says nothing"
    said = f"the undefended victim ({victim}) reaches {name} {quality:.3f} where a constant answer reaches {chance:.3f}"
    if (quality - chance) / (1 - chance) < NEAR_CHANCE:
        return f"{said}: near chance. Check classes, normalisation (mean, std), image size and weights"
    if quality - chance < ONE_SIDED_95 * math.sqrt(chance * (1 - chance) / count):
        return f"{said}: {count} images are too few to tell it from chance"
    return ""


def _chance(context: RunContext) -> float | None:
    """Returns the quality of the best constant answer; to questions, the best for each kind. None: no meaning."""
    task, images = context.task, context.evaluation
    if isinstance(task, QuestionTask):
        return _best_guess(task, images.ids)
    target = task.target(images)
    if target.ndim != 1 or target.is_floating_point() or not len(target):
        return None
    return float(torch.bincount(target.long() - target.long().min()).max()) / len(target)


def _best_guess(task: QuestionTask, ids: tuple[str, ...]) -> float:
    """Returns the share of answers that are right where each kind of question gets its most frequent answer."""
    asked = [task.asked(image_id) for image_id in ids]
    answers: dict[str, Counter[str]] = {}
    for one in (one for each in asked for one in each):
        answers.setdefault(one.kind, Counter())[one.answer] += 1
    guess = {kind: counted.most_common(1)[0][0] for kind, counted in answers.items()}
    return sum(sum(one.answer == guess[one.kind] for one in each) / len(each) for each in asked) / max(1, len(asked))


def _same_answers(context: RunContext) -> str:
    """Returns what to warn of where a victim that is only compared with itself gives one answer to all images."""
    if context.top1 is None or len(context.top1) < 2:
        return ""
    share = float(torch.bincount(context.top1).max()) / len(context.top1)
    if share <= ONE_ANSWER:
        return ""
    return (
        f"the undefended victim ({context.victim.name}) gives {share:.0%} of the evaluation images the same class, so "
        "that agreement with it says little. Check normalisation (mean, std), image size and weights"
    )
