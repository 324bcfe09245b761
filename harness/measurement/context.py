"""RunContext: what all exposures of a run share, built once a process."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakgauge.harness.contracts.task import Task
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.contracts.vision_language import VisionLanguageVictim
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.measurement.transmitting import joined
from leakgauge.harness.scoring import guards
from leakgauge.harness.scoring.judging import JudgedGallery
from leakgauge.harness.suite.registry import create
from leakgauge.harness.suite.schema import PluginConfig, Suite
from leakgauge.harness.values.images import ImageSet, SplitName


@dataclass(frozen=True)
class Context:
    """What every operating point is measured with, by a run and by a search alike.

    Args:
        task: The task.
        victim: Its victim, on ``device``.
        device: Where to compute.
        batch_size: Images at a time on edge and server.
        bandwidth_hz: Complex symbols a second, assumed.
    """

    task: Task
    victim: Victim
    device: torch.device
    batch_size: int
    bandwidth_hz: float

    @classmethod
    def open(cls, config: PluginConfig, device: torch.device, batch_size: int, bandwidth_hz: float) -> Context:
        """Loads a task and its victim."""
        task: Task = create("tasks", config.name, config.options, where="task")
        victim = task.victim()
        victim.to(device)
        return Context(task, victim, device, batch_size, bandwidth_hz)

    def images(self, split: SplitName, most: int | None) -> ImageSet:
        """Returns at most so many images of a split, after checking that what is asked about them fits.

        Splits are in class order, so evenly spaced images keep all classes.
        """
        images = self.task.split(split).evenly_spaced(most)
        check_questions(self.victim, self.task, images)
        return images

    def unmodified(self, images: ImageSet) -> Tensor:
        """Returns what the unmodified victim answers, (B, ...)."""
        with torch.no_grad():
            parts = [
                self.victim.respond(batch.images().to(self.device), self.task.questions(batch)).cpu()
                for batch in images.batches(self.batch_size)
            ]
        return joined(parts)

    def features(self, images: Tensor) -> Tensor:
        """Returns victim features (B, D) of uint8 images."""
        with torch.no_grad():
            parts = [
                self.victim.embed(part.to(self.device).float() / 255.0).cpu()
                for part in torch.split(images, self.batch_size)
            ]
        return torch.cat(parts)


@dataclass(frozen=True)
class RunContext(Context):
    """The evaluation images of a suite, and what the unmodified victim makes of them.

    Args:
        suite: The suite.
        evaluation: B images, all that is scored.
        output: (B, ...) what the unmodified victim answers.
        quality_base: (B,) quality of the unmodified victim.
        gallery: (B, D) its features of the images.
        top1: (B,) int64 its highest class, or None where its answer is no vector of classes.
        judging: The suite's judge before the images.
    """

    suite: Suite
    evaluation: ImageSet
    output: Tensor
    quality_base: Tensor
    gallery: Tensor
    top1: Tensor | None
    judging: JudgedGallery

    @classmethod
    def build(cls, suite: Suite, device: torch.device) -> RunContext:
        """Loads the task and runs the unmodified victim on the evaluation images."""
        own = Context.open(suite.task, device, suite.batch_size, suite.bandwidth_hz)
        evaluation = own.images("evaluation", suite.evaluation_images)
        output, gallery = own.unmodified(evaluation), own.features(evaluation.pixels)
        target = own.task.target(evaluation)
        base = guards.quality(own.task, output, target)
        top1 = output.argmax(dim=1) if _are_classes(output, gallery, target) else None
        judging = JudgedGallery.of(suite, own.victim, evaluation.pixels, device)
        shared = (own.task, own.victim, own.device, own.batch_size, own.bandwidth_hz)
        return cls(*shared, suite, evaluation, output, base, gallery, top1, judging)

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what ``features`` and ``label_agreement`` do, in one run of the victim where it can."""
        if self.task.questions(self.evaluation) is not None:
            return self.features(images), self._same_answers(images)
        if self.top1 is None:
            return self.features(images), torch.full((len(images),), torch.nan)
        with torch.no_grad():
            seen = [
                self.victim.look(part.to(self.device).float() / 255.0) for part in torch.split(images, self.batch_size)
            ]
        best = torch.cat([output.argmax(dim=1).cpu() for output, _ in seen])
        return torch.cat([features.cpu() for _, features in seen]), (best == self.top1).float()

    def label_agreement(self, images: Tensor) -> Tensor:
        """Returns (B,) 1 where the victim's top class on uint8 reconstructions is that on the originals, else 0.

        Where the task asks, the share of an image's questions that it answers as on the original. NaN where the
        victim's answer is no vector of classes: the largest entry of a feature means nothing.
        """
        return self.look(images)[1]

    def _same_answers(self, images: Tensor) -> Tensor:
        """Returns (B,) the share of each image's questions answered on uint8 reconstructions as on the originals."""
        shown = ImageSet(images, self.evaluation.ids)
        answers = self.unmodified(shown)
        same = (answers == self.output).all(dim=2)
        questions = self.task.questions(self.evaluation)
        assert questions is not None, "answers are compared where there are questions"
        asked = torch.tensor(questions.counts)
        counted = torch.arange(same.shape[1]) < asked[:, None]
        return (same & counted).sum(dim=1) / asked


def check_questions(victim: Victim, task: Task, images: ImageSet) -> None:
    """Checks before anything runs that every question fits into the victim's context beside an image.

    Args:
        victim: The victim.
        task: The task.
        images: The images that are asked about.

    Raises:
        DataError: One does not.
        ConfigError: The task asks, but its victim cannot answer.
    """
    questions = task.questions(images)
    if questions is None:
        return
    if not isinstance(victim, VisionLanguageVictim):
        raise ConfigError("the task asks questions that its victim cannot answer", where=f"task {task.name!r}")
    device = next(victim.model.parameters()).device
    victim.check_fits(victim.image_tokens(images.select([0]).images().to(device)), questions)


def _are_classes(output: Tensor, features: Tensor, target: Tensor) -> bool:
    """Tells whether outputs (B, C) score classes.

    They do where the task's targets are class numbers. Otherwise a model without a head is told by its answer, which
    is its features.
    """
    if output.ndim != 2 or output.shape[1] < 2:
        return False
    numbers = target.ndim == 1 and not target.is_floating_point()
    return numbers or output.shape != features.shape or not torch.equal(output, features)
