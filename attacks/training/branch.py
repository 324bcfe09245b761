"""A shorter training beside the main one, for the step-doubling check."""

from __future__ import annotations

from torch import nn

from leakgauge.attacks.training.schedule import Schedule
from leakgauge.attacks.training.trainee import LossOf, Trainee


class Branch:
    """A training of fewer steps, that leaves the main one where it would begin to decay.

    Args:
        schedule: How it is trained.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule, self._losses = schedule, list[float]()
        self._trainee: Trainee | None = None

    @property
    def network(self) -> nn.Module:
        """Its network; raises where it never left the main training."""
        assert self._trainee is not None
        return self._trainee.network

    @property
    def mean_loss(self) -> float:
        """The mean of its losses since it left."""
        return sum(self._losses) / len(self._losses)

    def leave(self, main: Trainee, step: int) -> None:
        """Copies the main training where this one begins to decay; called before every step of the main one."""
        if step == self._schedule.decay_start:
            self._trainee = main.branch()

    def follow(self, step: int, loss_of: LossOf) -> bool:
        """Takes its own step, if it has left and is not done; tells whether that was its last."""
        if self._trainee is None or step >= self._schedule.steps:
            return False
        self._losses.append(self._trainee.step(self._schedule.rate(step), loss_of))
        return step + 1 == self._schedule.steps
