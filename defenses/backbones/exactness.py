"""Checks once a victim that its adapter computes what the model itself does, and names what differs.

Adapters call a model's parts, not its ``forward``. What hangs on the forward methods between them (hooks, patches,
training mode, unusual masks) is then left out, and every number of the run would be of another model than the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from leakgauge.defenses.backbones.backbone import Backbone
from leakgauge.defenses.ragged.forward import run_edge
from leakgauge.defenses.reductions.none import NoReduction
from leakgauge.harness.contracts.victim import Victim
from leakgauge.harness.errors import VictimError
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

LIMIT = 1e-3
"""Largest difference from the model itself that is put down to rounding, in standard deviations of its output."""
ROUNDINGS = 32
"""The same where weights are of fewer bits than float32, in units of rounding: the two paths round differently."""

_checked: WeakKeyDictionary[nn.Module, set[Any]] = WeakKeyDictionary()
_SHOWN = 3


def limit_of(dtype: torch.dtype) -> float:
    """Returns the largest difference that counts as rounding for weights of a number type."""
    return max(LIMIT, ROUNDINGS * torch.finfo(dtype).eps) if dtype != torch.float32 else LIMIT


def deviation(found: Tensor, expected: Tensor) -> float:
    """Returns the largest difference between two outputs in standard deviations of the expected one; NaN is kept."""
    found, expected = found.double().flatten(), expected.double().flatten()
    scale = expected.std(correction=0) if len(expected) > 1 else expected.abs().amax()
    difference = (found - expected).abs().amax()
    return float(difference / scale) if float(scale) > 0 else (0.0 if float(difference) == 0 else float("inf"))


def noise_image(height: int, width: int, device: torch.device) -> Tensor:
    """Returns one image of noise, (1, 3, H, W) in [0, 1], always the same."""
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)


def once(model: nn.Module, what: str, check: Callable[[], None]) -> None:
    """Runs a check unless it has passed already with this model as it is now: hooks, patches, modes, type, device."""
    state = (what, _fingerprint(model))
    if state not in _checked.setdefault(model, set()):
        check()
        _checked[model].add(state)


def check_exact(victim: Victim, backbone: Backbone, device: torch.device) -> None:
    """Compares adapter and model on one image, unreduced and in the weights' own number type.

    Args:
        victim: The victim, on ``device``.
        backbone: The adapter of its model.
        device: Where to compute.

    Raises:
        VictimError: They differ, the model is in training mode, or its weights are of several number types.
    """
    once(victim.model, "answer", lambda: _compare(victim, backbone, device))


def check_mode(model: nn.Module) -> None:
    """Raises VictimError where a model, or a part of it, is in training mode."""
    training = [name or "the model" for name, module in model.named_modules() if module.training]
    if training:
        raise VictimError(
            f"the victim is in training mode ({_listed(training)}): dropout and batch statistics would act in it, and "
            "are left out of the split path",
            where="victim",
            hint="call `model.eval()`",
        )


@torch.no_grad()
def _compare(victim: Victim, backbone: Backbone, device: torch.device) -> None:
    check_mode(victim.model)
    with torch.autocast(device.type, enabled=False):
        image = noise_image(*backbone.image_size, device)
        seen: dict[int, Tensor] = {}
        with _listening(backbone, seen):
            own = victim.predict(image)
        states: list[Tensor] = []
        batch = backbone.embed(victim.normalise(image))
        first = batch.tokens.clone()
        batch = _blocks(backbone, batch, states)
        check_same(victim, backbone.finish(batch), own, lambda: _place([first, *states], seen))


def check_same(victim: Victim, found: Tensor, own: Tensor, place: Callable[[], str] = lambda: "") -> None:
    """Raises VictimError where outputs of the split path and of the model itself differ by more than rounding.

    Args:
        victim: The victim.
        found: What the split path makes of an image.
        own: What the model itself makes of it.
        place: Says where in the model they begin to differ.
    """
    if not bool(own.isfinite().all()):
        raise VictimError(
            "the model's own output holds NaN or infinite values",
            where="victim",
            hint="take weights of a wider number type, or check them",
        )
    if found.shape != own.shape:
        what = f"its output is {tuple(own.shape[1:])} where the adapter's is {tuple(found.shape[1:])}"
    else:
        apart, limit = deviation(found, own), limit_of(victim.dtype)
        if apart <= limit:
            return
        what = f"on one image they are {apart:.2g} standard deviations of the output apart, of at most {limit:.2g}"
    reasons = [*oddities(victim.model), *filter(None, [place()])]
    raise VictimError(
        f"the adapter does not compute what the model does: {what}; {'; '.join(reasons) or 'nothing odd was found'}",
        where="victim",
        hint="remove hooks and patches, or put what they do into the weights",
    )


def _blocks(backbone: Backbone, batch: TokenBatch, states: list[Tensor]) -> TokenBatch:
    """Runs all blocks; notes the tokens after each."""

    def note(_: int, after: TokenBatch) -> None:
        states.append(after.tokens.clone())

    return run_edge(
        backbone,
        batch,
        ("0",),
        NoReduction(),
        Streams(0),
        cut=backbone.depth,
        proportional=False,
        after_block=note,
    )[0]


class _listening:  # noqa: N801 - reads as a context
    """Notes what enters the model's first block and what leaves each, by number from 0 and 1; then takes itself off."""

    def __init__(self, backbone: Backbone, seen: dict[int, Tensor]) -> None:
        self._blocks, self._seen, self._handles = backbone.blocks(), seen, list[Any]()

    def __enter__(self) -> None:
        for i, block in enumerate(self._blocks):
            if i == 0:
                self._handles.append(block.register_forward_pre_hook(self._note_input))
            self._handles.append(block.register_forward_hook(self._noter(i + 1)))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _note_input(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            self._seen[0] = inputs[0].clone()

    def _noter(self, number: int) -> Callable[[nn.Module, Any, Any], None]:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            tokens = output[0] if isinstance(output, tuple) else output
            if isinstance(tokens, Tensor):
                self._seen[number] = tokens.clone()

        return note


def _place(states: list[Tensor], seen: dict[int, Tensor]) -> str:
    """Says after which block tokens begin to differ."""
    for number, state in enumerate(states):
        other = seen.get(number)
        if other is not None and (other.numel() != state.numel() or not deviation(state, other) <= LIMIT):
            return f"tokens differ after block {number} of {len(states) - 1}" if number else "embedded tokens differ"
    return "tokens agree after every block, so that it is the norm, pooling or head" if seen else ""


def oddities(model: nn.Module) -> list[str]:
    """Names what makes a model compute something else than its parts say: hooks and patched methods."""
    hooked, patched = [], []
    for name, module in model.named_modules():
        own = name or "the model itself"
        kinds = {"forward pre-hook": module._forward_pre_hooks, "forward hook": module._forward_hooks}
        hooked += [f"{kind} on {own}" for kind, hooks in kinds.items() if hooks]
        methods = [key for key, value in vars(module).items() if isinstance(value, FunctionType | MethodType)]
        patched += [f"{key} of {own}" for key in methods]
    patched += [f"{key} of class {kind.__name__}" for kind, key in _foreign_methods(model)]
    found = []
    if nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks:
        found.append("hooks on all modules")
    return found + [f"{word}{_listed(names)}" for word, names in (("", hooked), ("patched: ", patched)) if names]


def _foreign_methods(model: nn.Module) -> Iterator[tuple[type, str]]:
    """Yields methods that were put into the classes of a model's modules from another file."""
    kinds = {kind for module in model.modules() for kind in type(module).__mro__ if issubclass(kind, nn.Module)}
    for kind in sorted(kinds, key=lambda kind: kind.__qualname__):
        for key, value in vars(kind).items():
            forward = key == "forward" or key.startswith("forward_")
            if forward and isinstance(value, FunctionType) and value.__module__ != kind.__module__:
                yield kind, key


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _fingerprint(model: nn.Module) -> int:
    """Returns a hash of what may change about a model after it was checked, beside the values of its weights."""
    parts: list[Any] = []
    for module in model.modules():
        hooks = (module._forward_pre_hooks, module._forward_hooks)
        own = [(key, id(value)) for key, value in vars(module).items() if isinstance(value, FunctionType | MethodType)]
        kept = tuple(tuple(group) for group in hooks)  # their keys, which never come again
        parts.append((id(module), id(type(module).forward), module.training, kept, tuple(own)))
    parts += [(str(tensor.device), str(tensor.dtype)) for tensor in model.parameters()]
    return hash(tuple(parts))
