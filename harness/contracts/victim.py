"""The victim: a pretrained transformer, with what is needed to feed it and to name it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.values.questions import Questions


@dataclass(frozen=True)
class Victim:
    """A pretrained transformer, with what is needed to feed it and to name it.

    Args:
        model: The network in evaluation mode, head included; never modified.
        mean: Per-channel mean that normalises images in [0, 1].
        std: Per-channel standard deviation, likewise.
        weights_hash: SHA-256 of the weights, first 16 hex digits.
        name: Architecture name, for reports.

    The model computes in the number type of its weights: images are turned into it, answers and features into float32.
    """

    model: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights_hash: str
    name: str

    @classmethod
    def of(cls, model: nn.Module, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Victim:
        """Returns the victim of a model on the CPU, named by its class, with the hash of what it computes with."""
        digest = hashlib.sha256(f"{model} {mean} {std}".encode())
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return cls(model, mean, std, digest.hexdigest()[:16], type(model).__name__)

    def to(self, device: torch.device) -> nn.Module:
        """Moves the model, unless it is spread over devices already, and returns it."""
        return self.model if getattr(self.model, "hf_device_map", None) else self.model.to(device)

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the weights; of several the widest, float32 without any."""
        kinds = {tensor.dtype for tensor in self.model.parameters() if tensor.is_floating_point()}
        return max(kinds, key=lambda kind: torch.finfo(kind).bits, default=torch.float32)

    @property
    def device(self) -> torch.device:
        """Where images enter the model."""
        return next((tensor.device for tensor in self.model.parameters()), torch.device("cpu"))

    @property
    def decoding(self) -> str:
        """How answers are written, for a victim that writes any; else empty."""
        return ""

    def normalise(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, H, W) in [0, 1] to the model's input range and number type."""
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return ((images - mean) / std).to(self.dtype)

    def predict(self, images: Tensor) -> Tensor:
        """Returns the unmodified model's output (B, classes) on images (B, 3, H, W) in [0, 1]; see ``answer``."""
        return answer(self.model(self.normalise(images))).float()

    def respond(self, images: Tensor, questions: Questions | None = None) -> Tensor:
        """Returns what the task scores: the answers to ``questions``, or without them what ``predict`` returns."""
        return self.predict(images)

    def embed(self, images: Tensor) -> Tensor:
        """Returns the features before the classifier (B, D), or the output of models that do not expose them."""
        features, head = getattr(self.model, "forward_features", None), getattr(self.model, "forward_head", None)
        if features is not None and head is not None:
            pooled: Tensor = head(features(self.normalise(images)), pre_logits=True)
            return pooled.float()
        return self.look(images)[1]

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what ``predict`` and ``embed`` do, (B, classes) and (B, D), in one run of the model where it can."""
        classifier, seen = self._classifier(), list[Tensor]()
        # What enters that layer is listened to, and the listener taken off again.
        listener = None
        if classifier is not None:
            listener = classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            output = self.predict(images)
        finally:
            if listener is not None:
                listener.remove()
        if len(seen) == 1 and seen[0].ndim == 2:
            return output, seen[0].float()
        return output, self.embed(images) if hasattr(self.model, "forward_head") else output

    def _classifier(self) -> nn.Module | None:
        """Returns the layer that features enter, as timm and transformers name it; None where there is no such."""
        named = getattr(self.model, "get_classifier", None)
        layer = named() if callable(named) else getattr(self.model, "classifier", None)
        return layer if isinstance(layer, nn.Module) and not isinstance(layer, nn.Identity) else None


def answer(output: object) -> Tensor:
    """Returns the one tensor that counts as a model's answer: (B, classes), or (B, D) of a model without a head.

    Args:
        output: A tensor, or an object as the models of transformers return it; of that the first of logits, image
            embedding, pooler output and final state of the first token, the class token, that it has.

    Raises:
        ConfigError: It has none of them.
    """
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "image_embeds", "pooler_output"):
        value = getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    state = getattr(output, "last_hidden_state", None)
    if isinstance(state, Tensor):
        return state[:, 0]
    raise ConfigError(
        f"the model returns {type(output).__name__}, which holds no answer",
        where="victim",
        hint="wrap the model so that it returns a tensor (B, classes)",
    )
