"""Reads a private attribute off the tokens."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from leakgauge.attacks.networks.attention import padding_bias
from leakgauge.attacks.training.layout import token_statistics
from leakgauge.attacks.training.loop import Schedule, batches, hold_out, to_device
from leakgauge.attacks.training.trainee import Trainee
from leakgauge.harness.contracts.attack import AttackerView
from leakgauge.harness.contracts.probing import AttributeProbe
from leakgauge.harness.suite.options import Count, Positive
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

HEADS = 8
SIDE_VALUES = 2


class PooledClassifier(nn.Module):
    """Embeds every token, pools them by learned attention and by their mean, classifies; the order does not matter.

    Args:
        mean: (D,) of the token values.
        std: (D,) likewise.
        width: Channels.
        classes: Classes to tell apart.
    """

    def __init__(self, mean: Tensor, std: Tensor, width: int, classes: int) -> None:
        super().__init__()
        self.mean, self.std = nn.Buffer(mean), nn.Buffer(std)
        self.embed = nn.Sequential(nn.Linear(len(mean) + SIDE_VALUES, width), nn.GELU(), nn.LayerNorm(width))
        self.attention = nn.Linear(width, HEADS)
        self.answer = nn.Sequential(
            nn.LayerNorm(width * (HEADS + 1)),
            nn.Linear(width * (HEADS + 1), width),
            nn.GELU(),
            nn.Linear(width, classes),
        )

    def forward(self, observations: Observation) -> Tensor:
        """Returns logits (B, classes)."""
        batch = observations.as_batch()
        values = (batch.tokens - self.mean) / self.std
        count = torch.repeat_interleave(batch.lengths, batch.lengths)
        side = torch.stack([batch.sizes.to(values.dtype).log(), count.to(values.dtype).log()], dim=1)
        tokens, mask = batch.with_tokens(self.embed(torch.cat([values, side], dim=1))).padded()
        weights = (self.attention(tokens).transpose(1, 2) + padding_bias(mask)).softmax(dim=2)
        mean = tokens.sum(dim=1, keepdim=True) / batch.lengths[:, None, None]
        answer: Tensor = self.answer(torch.cat([weights @ tokens, mean], dim=1).flatten(1))
        return answer


class Attribute(AttributeProbe):
    """Attention-pool MLP from tokens to an attribute.

    Trains until the cross-entropy on held-out images has not fallen for some epochs and keeps the best weights, so
    that there is no budget to cut it short; only ``epochs`` bounds it, and where it did ``caveat`` says so.

    Args:
        attribute: Which of the task's attributes, or ``label``.
        epochs: Most passes over the auxiliary images.
        patience: Epochs without improvement after which to stop.
        width: Channels.
        batch_size: Images a step.
        learning_rate: AdamW's.
    """

    name = "attribute_probe"
    training = "search"
    layout = "needs none"

    def __init__(
        self,
        attribute: str = "detail",
        epochs: Count = 60,
        patience: Count = 6,
        width: Count = 96,
        batch_size: Count = 64,
        learning_rate: Positive = 1e-3,
    ) -> None:
        self.attribute = attribute
        self._epochs, self._patience, self._width = epochs, patience, width
        self._batch_size, self._rate = batch_size, learning_rate

    def fit(
        self, view: AttackerView, auxiliary: ImageSet, answers: Tensor, classes: int, rng: Streams
    ) -> LearningCurve | None:
        """Trains with early stopping; there is no curve, as no picture is painted."""
        split, device = hold_out(auxiliary, rng), view.device
        mean, std = token_statistics(view.observe(auxiliary))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.child("init").entropy())
            network = PooledClassifier(mean, std, self._width, classes).to(device)
        trainee = Trainee(network, weight_decay=0.05)
        an_epoch = max(1, len(split.train) // self._batch_size)
        schedule = Schedule(self._epochs * an_epoch, self._batch_size, self._rate)
        best, waited, kept = float("inf"), 0, copy.deepcopy(network.state_dict())

        def loss_on(observed: Observation, rows: Tensor, learner: nn.Module) -> Tensor:
            return cross_entropy(learner(to_device(observed, device)), answers[rows].to(device))

        for batch in batches(partial(view.observe, auxiliary), split.train, schedule, rng):
            trainee.step(schedule.rate(batch.step), partial(loss_on, batch.observed, batch.rows))
            if (batch.step + 1) % an_epoch:
                continue
            with torch.no_grad():
                seen = view.observe(auxiliary, batch.draw).select(split.heldout)
                missed = float(loss_on(seen, split.heldout, network.eval()))
            waited += 1
            if missed < best:
                best, waited, kept = missed, 0, copy.deepcopy(network.state_dict())
            if waited >= self._patience:
                break
        self.caveat = None if waited >= self._patience else f"still learning after all {self._epochs} epochs"
        network.load_state_dict(kept)
        self._network, self._device = network.eval(), device
        return None

    @torch.no_grad()
    def predict(self, observations: Observation, rng: Streams) -> Tensor:
        """Returns probabilities (B, classes)."""
        parts = [
            self._network(to_device(observations.select(rows), self._device)).softmax(dim=1).cpu()
            for rows in torch.split(torch.arange(len(observations)), 256)
        ]
        return torch.cat(parts)
