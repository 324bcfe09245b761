"""Evaluates operating points on the search split: quality and cost from one pass of edge and server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leakgauge.harness.contracts.defense import Defense, tunable
from leakgauge.harness.contracts.link import Transmission
from leakgauge.harness.errors import ConfigError, LeakgaugeError
from leakgauge.harness.measurement.context import Context
from leakgauge.harness.measurement.operating_point import Preparation, measure
from leakgauge.harness.scoring import guards
from leakgauge.harness.scoring.compute import measure_flops
from leakgauge.harness.search.sampling.schedule import Candidate
from leakgauge.harness.search.space import Space
from leakgauge.harness.search.trials.memo import Memo
from leakgauge.harness.search.trials.proxy import LeakageProxy
from leakgauge.harness.store import number_type
from leakgauge.harness.suite.planning import build_defense, content_hash
from leakgauge.harness.suite.schema import PluginConfig
from leakgauge.harness.system.machine import machine_of
from leakgauge.harness.values.flops import Flops
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.questions import Questions
from leakgauge.harness.values.seeding import Streams

Metrics = dict[str, float]
_METRICS = ("quality", "gflops_edge", "gflops_total", "tokens", "payload_bytes", "channel_uses")
_UNUSED = {
    "name",
    "description",
    "rungs",
    "objectives",
    "trials",
    "warm_start",
    "sampler",
    "seed",
    "baselines",
    "remeasure",
}


class Evaluator:
    """All that the trials of one process share. The evaluation split is never loaded.

    Numbers are those that a run of the same operating point on the same images would write: same random streams,
    same batches. They depend on no seed of the search.

    Args:
        space: The space.
        device: Where to compute.
        memo: Keeps what was measured, by all that decides it.

    Raises:
        LeakgaugeError: A plug-in, an option or the data is not as it must be.
    """

    def __init__(self, space: Space, device: torch.device, memo: Memo) -> None:
        self.space, self._memo = space, memo
        self._context = Context.open(space.task, device, space.batch_size, space.bandwidth_hz)
        self.images = self._context.images("search", space.search_images)
        split, wanted = self._context.task.split("calibration"), space.calibration.images
        first = wanted is not None and space.calibration.pick == "first"
        self.calibration = split.select(range(min(wanted or 0, len(split)))) if first else split.evenly_spaced(wanted)
        self._root = self._build({})
        self.cut = tunable(self._root, space.defense.name).cut
        self._proxy = None if space.proxy is None else LeakageProxy(space, self._context, self.images)
        self._check_options()
        task, output = self._context.task, self._context.unmodified(self.images)
        self.quality_base = float(guards.quality(task, output, task.target(self.images)).double().mean())
        """Mean quality of the unmodified victim on the search images."""
        self._data = self.data

    def _build(self, options: dict[str, Any]) -> Defense:
        config = {**self.space.defense.options, "channel": self.space.channels[0].model_dump(), **options}
        return build_defense(
            PluginConfig(name=self.space.defense.name, **config), "search", self._context.victim, self._context.device
        )

    def _check_options(self) -> None:
        """Builds every choice and baseline once, so that bad options show before the first trial."""
        root, choices = tunable(self._root, self.space.defense.name), self.space.choices
        tried: list[tuple[str, dict[str, Any]]] = [(f"choices.cut: {cut}", {"cut": cut}) for cut in choices.cut]
        tried += [(f"choices.codec: {codec}", {"codec": codec.model_dump()}) for codec in choices.codec]
        tried += [(f"choices.channel: {channel}", {"channel": channel.model_dump()}) for channel in choices.channel]
        tried += [(f"baselines: {point.name}", point.options) for point in self.space.baselines]
        for where, options in tried:
            try:
                root.tuned(**options)
            except LeakgaugeError as error:
                raise ConfigError(error.what, where=where, hint=error.hint) from error
            except TypeError as error:
                raise ConfigError(str(error).split("() ")[-1], where=where, hint="check the options") from error

    @property
    def data(self) -> dict[str, str]:
        """Content hashes of all data that a trial depends on."""
        found = {
            "split_search": self.images.full_digest(),
            "calibration_images": self.calibration.full_digest(),
            "victim": self._context.victim.weights_hash,
            "task": f"{self._context.task.name} v{self._context.task.version}",
        }
        return found if self._proxy is None else {**found, "split_attacker": self._proxy.auxiliary.full_digest()}

    @property
    def quality_name(self) -> str:
        """What the task's quality measures."""
        return self._context.task.quality_name

    def options(self, candidate: Candidate) -> dict[str, Any]:
        """Returns the defense options of a candidate as a suite would state them: shares have become thresholds."""
        options: dict[str, Any] = {"cut": candidate.cut}
        if candidate.codec is not None:
            options["codec"] = candidate.codec.model_dump()
        values = list(candidate.shares)
        option, calibrated = self.space.searched
        if calibrated:
            key = {"options": options, "shares": values}
            found = self._memo.cached(self._key("thresholds", key), lambda: {"tau": self._calibrate(options, values)})
            values = [float(tau) for tau in found["tau"]]
        return {**options, "reduction": {"name": self.space.family, option: values}}

    def _calibrate(self, options: dict[str, Any], shares: Sequence[float]) -> list[float]:
        root = tunable(self._root, self.space.defense.name)
        sibling = tunable(root.tuned(**options), self.space.defense.name)
        return sibling.calibrated_thresholds(self.calibration, shares)

    def measure(self, options: dict[str, Any], channel: PluginConfig, share: float = 1.0) -> Metrics:
        """Returns the metrics of an operating point, means over the search images.

        Args:
            options: Defense options that override those of the space.
            channel: The channel between edge and server.
            share: The share of the search images to evaluate on, evenly spaced.
        """
        key: dict[str, Any] = {"options": options, "channel": channel.model_dump()}
        images = self.images
        if share < 1:
            images = images.evenly_spaced(max(2, round(share * len(images))))
            key["images"] = len(images)
        return self._memo.cached(self._key("metrics", key), lambda: self._measure(options, channel, images))

    def _key(self, what: str, key: dict[str, Any]) -> str:
        unused = _UNUSED | {"share", "schedule", "choices", "constraints", "reference"}
        space = self.space.model_dump(mode="json", exclude=unused)
        measured = sorted(self.space.measured & {"leakage", "latency_ms"})
        machine = machine_of(self._context.device)
        decides = {"space": space, "measured": measured, "data": self._data, "machine": machine}
        if "leakage" in self.space.measured:
            decides["number_types"] = number_type.facts()
        return content_hash({"what": what, **key, **decides})

    def _measure(self, options: dict[str, Any], channel: PluginConfig, images: ImageSet) -> Metrics:
        options = {**options, "channel": channel.model_dump()}
        streams = Streams(0, ("evaluation",))
        defense = tunable(self._root, self.space.defense.name).tuned(**options)
        timed = "latency_ms" in self.space.measured
        point = measure(self._context, defense, images, streams, count=self._count, timed=timed)
        metrics = {name: float(point.costs[name].double().mean()) for name in _METRICS}
        if point.latency_ms is not None:
            metrics["latency_ms"] = point.latency_ms
        if self._proxy is not None and "leakage" in self.space.measured:
            attacked = self._attacked(options, point.preparation)
            metrics["leakage"] = self._proxy.leakage(attacked, point)
        return metrics

    def _count(
        self,
        defense: Defense,
        images: ImageSet,
        transmission: Transmission,
        rng: Streams,
        questions: Questions | None = None,
        output: Tensor | None = None,
    ) -> Flops:
        """Counts as a run does, or faster where the defense can: every trial pays for it."""
        counted = tunable(defense, self.space.defense.name).flops(images, transmission, questions, output)
        return measure_flops(defense, images, transmission, rng, questions, output) if counted is None else counted

    def _attacked(self, options: dict[str, Any], preparation: Preparation | None) -> Defense:
        """Builds the defense once more for the attacker, to whom nothing of the search images is known."""
        defense = self._build(options)
        if preparation is not None:
            defense.prepare(*preparation)
        return defense
