"""FastV: after a few layers the language model drops the image tokens that its last token attends to least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pydantic import with_config
from torch import Tensor
from transformers.masking_utils import create_causal_mask
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from typing_extensions import TypedDict

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.options import Count, Share

RUNS = ("LlamaModel", "MistralModel", "Qwen2Model")
"""Language models whose layers are called one by one: those with the layers of Llama."""


class Stream(NamedTuple):
    """What some layers have seen so far: ``mask`` (N, S) int64 of real tokens, ``last`` (N,) the last position."""

    mask: Tensor
    last: Tensor

    def longer(self) -> Stream:
        """Returns the stream with one more token a sequence."""
        return Stream(torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1), self.last + 1)


@with_config(extra="forbid", strict=True)
class FastVOptions(TypedDict, total=False):
    """Options of FastV, as a suite states them."""

    layer: Count
    keep: Share


@dataclass(frozen=True)
class FastV:
    """FastV (Chen et al. 2024): compute-only, since the payload has been sent when it acts.

    Image tokens are ranked by the attention that the last token of the prompt pays them in layer ``layer``, mean over
    heads; the first ``keep`` of them stay, in their places and with their positions, for all later layers and for
    decoding.

    Args:
        layer: Layers that see all tokens, from 1 (K in the paper, 2 there).
        keep: Share of the image tokens that stays, 0 to 1; rounded to a count (1 - R in the paper).
    """

    layer: int = 2
    keep: float = 0.5

    def check(self, model: Any) -> None:
        """Raises ConfigError where the language model is not one that it runs, or has too few layers."""
        check_layers(model)
        if getattr(model.config, "sliding_window", None) is not None:
            what = "the language model attends within a sliding window"
            raise ConfigError(what, where="fastv", hint="leave it out, or take a model without one")
        if self.layer >= len(model.layers):
            raise ConfigError(
                f"layer = {self.layer}, but the language model has {len(model.layers)} layers",
                where="fastv",
                hint=f"give 1 to {len(model.layers) - 1}",
            )

    def kept(self, image_tokens: int) -> int:
        """Returns how many of an image's tokens stay."""
        return round(self.keep * image_tokens)

    def start(
        self, model: Any, embedded: Tensor, mask: Tensor, image: Tensor, cache: Any
    ) -> tuple[Tensor, tuple[Stream, Stream]]:
        """Runs whole prompts.

        Args:
            model: The language model.
            embedded: (N, S, D), padded on the left.
            mask: (N, S) int64, 1 for real tokens.
            image: (N, S) bool, where image tokens lie.
            cache: Filled with keys and values.

        Returns:
            Normed states (N, S', D), and what the layers before and after the drop have seen.
        """
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        before = run_layers(model, embedded, mask, positions, cache, 0, self.layer - 1)
        states = run_layers(model, before, mask, positions, cache, self.layer - 1, self.layer)
        received = last_attention(model, before[:, -1:], mask, positions[:, -1:], cache, self.layer - 1)
        rows = [self._stays(received[i], mask[i].bool(), image[i]).nonzero()[:, 0] for i in range(len(mask))]
        longest = max(map(len, rows))
        index = torch.stack([torch.cat([row.new_zeros(longest - len(row)), row]) for row in rows])
        pads = torch.tensor([longest - len(row) for row in rows], device=mask.device)
        own = (torch.arange(longest, device=mask.device) >= pads[:, None]).long()
        states = states.gather(1, index[..., None].expand(-1, -1, states.shape[-1]))
        later = positions.gather(1, index)
        states = run_layers(model, states, own, later, cache, self.layer, len(model.layers))
        last = positions[:, -1]
        return model.norm(states), (Stream(mask, last), Stream(own, last))

    def _stays(self, received: Tensor, real: Tensor, image: Tensor) -> Tensor:
        """Returns (S,) True for tokens that stay: all texts, and the image tokens that receive most attention."""
        places = image.nonzero()[:, 0]
        stays = real & ~image
        stays[places[received[places].argsort(descending=True, stable=True)[: self.kept(len(places))]]] = True
        return stays


def check_layers(model: Any) -> None:
    """Raises ConfigError where the layers of a language model are not known to be those of Llama."""
    if type(model).__name__ not in RUNS:
        raise ConfigError(
            f"the layers of {type(model).__name__} cannot be called one by one",
            where="victim",
            hint=f"take a language model among {', '.join(RUNS)}",
        )


def run_layers(model: Any, states: Tensor, mask: Tensor, positions: Tensor, cache: Any, first: int, end: int) -> Tensor:
    """Runs the layers ``first`` to ``end`` of a language model of Llama's kind on the newest tokens.

    Args:
        model: The language model.
        states: (N, n, D) the newest tokens as they enter layer ``first``.
        mask: (N, S) int64, 1 for real tokens, of all that these layers have seen, the newest included.
        positions: (N, n) their positions.
        cache: Keys and values of earlier tokens; added to.
        first: The first layer.
        end: One more than the last.
    """
    if first >= end:
        return states
    causal = create_causal_mask(
        config=model.config,
        inputs_embeds=states,
        attention_mask=mask,
        past_key_values=cache if cache.get_seq_length(first) else None,
        position_ids=positions,
        layer_idx=first,
    )
    rotary = model.rotary_emb(states, position_ids=positions)
    for layer in model.layers[first:end]:
        states = layer(
            states,
            attention_mask=causal,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            position_embeddings=rotary,
        )
    return states


def last_attention(model: Any, state: Tensor, mask: Tensor, position: Tensor, cache: Any, layer: int) -> Tensor:
    """Returns the attention (N, S) that the last token pays every token in a layer, mean over heads, float32.

    Args:
        model: The language model.
        state: (N, 1, D) the last token as it enters the layer.
        mask: (N, S) int64, 1 for real tokens.
        position: (N, 1) its position.
        cache: Holds the keys (N, heads, S, d) of the layer.
        layer: Its number.
    """
    block = model.layers[layer]
    attention = block.self_attn
    query = attention.q_proj(block.input_layernorm(state)).view(len(state), 1, -1, attention.head_dim).transpose(1, 2)
    cos, sin = model.rotary_emb(state, position_ids=position)
    query, _ = apply_rotary_pos_emb(query, query, cos, sin)
    keys = cache.layers[layer].keys
    keys = keys.repeat_interleave(query.shape[1] // keys.shape[1], dim=1)
    logits = (query.float() @ keys.float().transpose(2, 3))[:, :, 0] * attention.scaling
    weights: Tensor = logits.masked_fill(mask[:, None] == 0, -torch.inf).softmax(dim=-1).mean(dim=1)
    return weights
