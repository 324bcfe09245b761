"""How a network is trained: steps, batch size and rates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Schedule:
    """How to train: linear warm-up, constant until half of the steps, then a squared half cosine to zero.

    The long constant part is what makes a training of half the steps cheap to have beside this one: up to a quarter
    of the steps the two are the same. The squared cosine ends in a long tail at small rates, which settles sooner.

    Args:
        steps: Optimiser steps.
        batch_size: Images a step.
        peak_lr: Learning rate after warm-up.
        warmup_steps: Steps of linear warm-up.
        weight_decay: On matrices only.
        muon: Learning rate of Muon on hidden matrices over AdamW's on the rest; 0 for AdamW alone.
    """

    steps: int
    batch_size: int
    peak_lr: float
    warmup_steps: int = 50
    weight_decay: float = 0.01
    muon: float = 0.0

    @property
    def decay_start(self) -> int:
        """The first step at which the learning rate falls."""
        return self.steps // 2

    def rate(self, step: int) -> float:
        """Returns the learning rate at a step."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        decayed = max(0, step - self.decay_start) / max(1, self.steps - self.decay_start)
        return self.peak_lr * warm * (0.5 * (1.0 + math.cos(math.pi * decayed))) ** 2

    def halved(self) -> Schedule:
        """Returns the schedule of a training of half the steps, warm-up unchanged."""
        return replace(self, steps=self.steps // 2)

    def earlier(self) -> tuple[Schedule, Schedule]:
        """Returns the schedules of half and of a quarter of the steps: what the two last doublings are measured by."""
        return self.halved(), self.halved().halved()
