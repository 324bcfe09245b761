"""Attacks that run another attack under changed circumstances."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from torch import Tensor

from leakgauge.harness.contracts.attack import Attack
from leakgauge.harness.contracts.declarations import Knowledge, check_knowledge_type
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.options import NestedPlugin, Spec
from leakgauge.harness.suite.registry import create, load, name_and_options
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

AttackSpec = Annotated[Spec, NestedPlugin("attacks")]


class Wrapped(Attack):
    """An attack around another one. Answers for it in what it must know and in whether it is a floor.

    Args:
        attack: The attack within: its name, or ``{name: ..., options}``.
    """

    extra: ClassVar[Knowledge] = Knowledge(auxiliary=False)
    """What the wrapper itself needs to know."""

    def __init__(self, attack: AttackSpec) -> None:
        name, options = name_and_options("attacks", attack, f"attack {self.name!r}: attack")
        inner = create("attacks", name, options, where=f"attack {self.name!r}")
        if not isinstance(inner, Attack):
            raise ConfigError(f"{name!r} rebuilds no images", hint="wrap an attack, not a probe")
        self._inner = inner
        # These are of the class elsewhere; a wrapper learns them from its options.
        vars(self).update(
            knowledge=self.knowledge_for({"attack": attack}),
            floor=inner.floor,
            training=inner.training,
            layout=inner.layout,
            least_steps=inner.least_steps,
            adaptive=self.adaptive and inner.adaptive,
        )

    @classmethod
    def knowledge_for(cls, options: dict[str, Any]) -> Knowledge:
        """Returns what the attack that these options build needs to know; asked before it is built."""
        name, inner_options = name_and_options("attacks", options.get("attack"), f"attack {cls.name!r}: attack")
        inner, where = load("attacks", name, where=f"attack {cls.name!r}"), f"attack {name!r}"
        asked = getattr(inner, "knowledge_for", None)
        needs = check_knowledge_type(inner.knowledge if asked is None else asked(inner_options), where)
        access = ("none", "query", "white-box")
        return Knowledge(
            sizes=needs.sizes or cls.extra.sizes,
            order=needs.order or cls.extra.order,
            merge_map=needs.merge_map or cls.extra.merge_map,
            channel_state=needs.channel_state or cls.extra.channel_state,
            victim=max(needs.victim, cls.extra.victim, key=access.index),
            auxiliary=needs.auxiliary or cls.extra.auxiliary,
        )

    def reconstruct(self, observations: Observation, rng: Streams) -> Tensor:
        """Answers as the attack within does."""
        images = self._inner.reconstruct(observations, rng)
        self._take_doubt()
        return images

    def _take_doubt(self) -> None:
        """Says what the attack within says; one that says nothing is not spoken for."""
        if "caveat" in vars(self._inner):
            self.caveat = self._inner.caveat
