import torch

from leakgauge.harness.contracts.probing import AttributeProbe


class MeanProbe(AttributeProbe):
    """Names the attribute whose images have, on average, the nearest mean token."""

    name = "mean_probe"
    training = "closed_form"
    layout = "needs none"

    def __init__(self, attribute: str):
        self.attribute = attribute

    def fit(self, view, auxiliary, answers, classes, rng):
        means = self._means(view.observe(auxiliary))
        self.centres = torch.stack([means[answers.to(means.device) == k].mean(dim=0) for k in range(classes)])

    def predict(self, observations, rng):
        return -torch.cdist(self._means(observations), self.centres)

    @staticmethod
    def _means(observations):
        return torch.stack([own.mean(dim=0) for own in observations.tokens.split(observations.lengths.tolist())])
