"""From the parameters that a sampler draws to shares for each edge block, cut, codec and channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import Trial

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.search.space import Space
from leakgauge.harness.suite.schema import PluginConfig

Params = dict[str, Any]
CUT, CODEC, CHANNEL = "cut", "codec", "channel"


@dataclass(frozen=True)
class Candidate:
    """What one trial tries.

    Args:
        shares: For each edge block the share of its matches that merges, in [0, 1].
        codec: The codec where it is searched, else None.
        channel: The channel.
    """

    shares: tuple[float, ...]
    codec: PluginConfig | None
    channel: PluginConfig

    @property
    def cut(self) -> int:
        """The number of edge blocks."""
        return len(self.shares)


class TrialSchedule:
    """The dimensions of a space.

    Every dimension is drawn in every trial, also the shares of blocks behind a searched cut, which then go unused: a
    surrogate model of one fixed space learns more than several of parts of it.

    Args:
        space: The space.
        cut: Edge blocks of the defense where the cut is not searched.
    """

    def __init__(self, space: Space, cut: int) -> None:
        self._space, self._cut = space, cut
        self.blocks = max(space.choices.cut, default=cut)
        if max(self.blocks, 1) < 2 and space.schedule == "parametric":
            raise ConfigError("a line needs two blocks", where="schedule", hint="take schedule: shared")
        self._codecs = {str(codec): codec for codec in space.choices.codec}
        self._channels = {str(channel): channel for channel in space.channels}

    @property
    def share_names(self) -> list[str]:
        """Names of the parameters that are shares."""
        if self._space.schedule == "shared":
            return ["share"]
        if self._space.schedule == "parametric":
            return ["share_start", "share_end"]
        return [f"share_{block}" for block in range(self.blocks)]

    def distributions(self) -> dict[str, BaseDistribution]:
        """Returns the dimensions that samplers draw from, in a fixed order."""
        low, high = self._space.share.low, self._space.share.high
        found: dict[str, BaseDistribution] = {name: FloatDistribution(low, high) for name in self.share_names}
        for name, labels in self._choices().items():
            found[name] = CategoricalDistribution(labels)
        return found

    def _choices(self) -> dict[str, list[Any]]:
        """Returns the searched choices by name, each with more than one value."""
        listed: dict[str, list[Any]] = {
            CUT: list(self._space.choices.cut),
            CODEC: list(self._codecs),
            CHANNEL: list(self._channels),
        }
        return {name: labels for name, labels in listed.items() if len(labels) > 1}

    def drawn(self, trial: Trial) -> Candidate:
        """Has a trial draw every dimension; returns what it tries."""
        params: Params = {}
        for name, distribution in self.distributions().items():
            if isinstance(distribution, FloatDistribution):
                params[name] = trial.suggest_float(name, distribution.low, distribution.high)
            elif isinstance(distribution, CategoricalDistribution):
                params[name] = trial.suggest_categorical(name, list(distribution.choices))
        return self.candidate(params)

    def candidate(self, params: Mapping[str, Any]) -> Candidate:
        """Turns drawn parameters into what is tried."""
        cuts, codecs = self._space.choices.cut, list(self._codecs)
        cut = int(params.get(CUT, cuts[0] if cuts else self._cut))
        codec = self._codecs[params.get(CODEC, codecs[0])] if codecs else None
        channel = self._channels[params.get(CHANNEL, next(iter(self._channels)))]
        return Candidate(self._shares(params, cut), codec, channel)

    def _shares(self, params: Mapping[str, Any], cut: int) -> tuple[float, ...]:
        drawn = [float(params[name]) for name in self.share_names]
        if self._space.schedule == "shared":
            return tuple(drawn * cut)
        if self._space.schedule == "parametric":
            return tuple(float(share) for share in np.linspace(drawn[0], drawn[1], self.blocks)[:cut])
        return tuple(drawn[:cut])

    def line(self, start: float, end: float, number: int) -> Params:
        """Returns the parameters of a straight line over the blocks, both ends in the range of the space.

        Args:
            start: The share of the first block.
            end: The share of the last.
            number: Which combination of the searched choices goes with it; after the last they begin again.

        Raises:
            ConfigError: The schedule is one share for all blocks and the ends differ.
        """
        if self._space.schedule == "shared":
            if start != end:
                raise ConfigError("one share for all blocks is no line", where="sampler", hint="take sampler: sweep")
            return {"share": start, **self._choice(number)}
        if self._space.schedule == "parametric":
            return {"share_start": start, "share_end": end, **self._choice(number)}
        shares = (float(share) for share in np.linspace(start, end, self.blocks))
        return {**dict(zip(self.share_names, shares, strict=True)), **self._choice(number)}

    def _choice(self, number: int) -> Params:
        """Returns the ``number``-th combination of the searched choices, beginning again after the last."""
        params: Params = {}
        for name, labels in self._choices().items():
            number, position = divmod(number, len(labels))
            params[name] = labels[position]
        return params

    def warm_start(self, count: int) -> list[Params]:
        """Returns ``count`` uniform schedules, evenly spaced from the least share to the largest."""
        low, high = self._space.share.low, self._space.share.high
        shares = np.linspace(low, high, count) if count > 1 else np.array([(low + high) / 2][:count])
        return [self.line(float(share), float(share), number) for number, share in enumerate(shares)]
