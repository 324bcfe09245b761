from typing import Annotated

import torch

from leakgauge.harness.contracts.defense import Defense
from leakgauge.harness.contracts.link import Encoded, Transmission
from leakgauge.harness.suite.options import NestedPlugin, Spec
from leakgauge.harness.suite.registry import create_nested
from leakgauge.harness.values.tokens import TokenBatch


class AnswerOnly(Defense):
    """Runs the whole model on the edge and sends its answer as float16: what nobody can do without leaks even so.

    Args:
        victim: Given by the harness.
        device: Given by the harness.
        channel: Given by the suite's `channels`.
    """

    name = "answer_only"
    grid = (1, 1)

    def __init__(self, victim, device, channel: Annotated[Spec, NestedPlugin("channels")] = "ideal"):
        self._victim, self._device = victim, device
        victim.to(device)
        self.channel = create_nested("channels", channel, where="defense 'answer_only'")

    def encode(self, images, rng):
        with torch.no_grad():
            answers = self._victim.predict(images.images().to(self._device)).half().cpu()
        one = torch.ones(len(answers), dtype=torch.long)
        packets = tuple((answer.numpy().tobytes(),) for answer in answers)
        return Encoded(
            ids=images.ids,
            # One token an image, which stands for all that the picture shows.
            decoded=TokenBatch(answers.float(), one, one, torch.zeros(len(answers), 1, dtype=torch.long), prefix=0),
            payload_bytes=torch.tensor([len(own) for (own,) in packets]),
            side_bytes=torch.zeros_like(one),
            tokens_per_layer=one[:, None],
            sizes_sent=False,
            packets=packets,
        )

    def send(self, encoded, rng, channel=None):
        received = (channel or self.channel).apply(encoded.decoded, encoded.ids, rng)
        return Transmission(encoded, received.tokens, received.channel_uses, received.state)

    def respond(self, transmission, questions=None):
        return transmission.received.tokens
