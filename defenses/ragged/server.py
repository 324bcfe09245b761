"""The server: the half of a split pipeline that answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leakgauge.defenses.ragged.forward import run_server
from leakgauge.defenses.ragged.split_victim import SplitVictim
from leakgauge.harness.contracts.link import Transmission
from leakgauge.harness.values.flops import Flops
from leakgauge.harness.values.tokens import TokenBatch


class SplitServer(ABC):
    """What makes an answer of the tokens that arrived.

    Args:
        split: The victim, cut.
    """

    def __init__(self, split: SplitVictim) -> None:
        self._split = split

    def _arrived(self, transmission: Transmission) -> TokenBatch:
        """Returns the tokens that arrived, on the device and in the number type of the victim's weights."""
        batch = transmission.received.to(self._split.device)
        return batch.with_tokens(batch.tokens.to(self._split.backbone.dtype))

    @abstractmethod
    def respond(self, transmission: Transmission, questions: Any = None) -> Tensor:
        """Returns the task output (B, ...) on the CPU."""

    @abstractmethod
    def flops(
        self, edge: Sequence[int], transmission: Transmission, questions: Any, output: Tensor | None
    ) -> Flops | None:
        """Returns what each image costs in all; None where that is not known without an answer.

        Args:
            edge: FLOPs of each image before its payload is sent.
            transmission: What arrived.
            questions: What was asked about the images, if anything.
            output: The answer.
        """


class ClassifierServer(SplitServer):
    """The other blocks, norm, pooling and head of an image classifier.

    received tokens (T, D) -> blocks without reduction -> norm, pooling, head -> output (B, classes)
    """

    def respond(self, transmission: Transmission, questions: Any = None) -> Tensor:
        """Runs blocks and head: (B, classes)."""
        return self.logits(self._arrived(transmission)).float().cpu()

    def logits(self, batch: TokenBatch) -> Tensor:
        """Runs blocks and head on tokens as the edge leaves them: (B, classes) on the device."""
        split = self._split
        with torch.no_grad(), split.autocast():
            return run_server(split.backbone, batch, split.server_blocks, proportional=split.proportional)

    def flops(
        self, edge: Sequence[int], transmission: Transmission, questions: Any, output: Tensor | None
    ) -> Flops | None:
        """Adds blocks and head, on the tokens that arrived."""
        split, table = self._split, self._split.flop_table
        blocks = table.server(transmission, split.server_blocks, proportional=split.proportional)
        heads = map(table.finish, transmission.received.lengths.tolist())
        total = [sum(parts) / 1e9 for parts in zip(edge, blocks, heads, strict=True)]
        before_sending = torch.tensor([one / 1e9 for one in edge], dtype=torch.float64)
        return Flops(before_sending, torch.tensor(total, dtype=torch.float64))
