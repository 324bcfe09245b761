"""The edge as a differentiable function of its images, for white-box attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from leakgauge.defenses.backbones.backbone import Backbone
from leakgauge.defenses.ragged.forward import run_edge
from leakgauge.defenses.reductions.none import NoReduction
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Keeps gradients out of a model's parameters; what they were set to is restored."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def differentiable_tokens(
    model: nn.Module, backbone: Backbone, images: Tensor, cut: int, outgoing: Callable[[TokenBatch], TokenBatch]
) -> TokenBatch:
    """Runs the first ``cut`` blocks without reduction.

    Args:
        model: The network, whose parameters get no gradient.
        backbone: Its adapter.
        images: (B, 3, H, W), normalised; gradients reach them.
        cut: Blocks to run.
        outgoing: Makes of the tokens after the last block those that are sent.
    """
    with frozen(model):
        batch = backbone.embed(images)
        names = tuple(str(i) for i in range(len(images)))
        batch, _ = run_edge(backbone, batch, names, NoReduction(), Streams(0), cut=cut, proportional=False)
        batch = outgoing(batch)
    return batch.with_tokens(batch.tokens.float())
