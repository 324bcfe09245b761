import torch

from leakgauge.harness.contracts.link import Channel, Received
from leakgauge.harness.suite.options import Share


class Blanking(Channel):
    """Sets each token value to zero with a probability of its own: a receiver that drops out.

    Args:
        p: That probability.
    """

    name = "blanking"
    random = True

    def __init__(self, p: Share = 0.1):
        self.p = p

    def apply(self, sent, ids, rng):
        width = sent.tokens.shape[1]
        heard = []
        for own, image_id in zip(sent.tokens.split(sent.lengths.tolist()), ids, strict=True):
            # A stream named after the image: what it receives never depends on its batch mates.
            drawn = torch.rand(own.shape, generator=rng.child(self.name, image_id).torch())
            heard.append(own * (drawn >= self.p).to(own))
        return Received(sent.with_tokens(torch.cat(heard)), sent.lengths * ((width + 1) // 2), None)
