"""Leakage by a cheap attack, as an objective: it is fitted anew to every operating point."""

from __future__ import annotations

from torch import Tensor

from leakgauge.harness.contracts.attack import Attack
from leakgauge.harness.contracts.defense import Defense
from leakgauge.harness.errors import ConfigError
from leakgauge.harness.measurement.attacker_view import GrantedView, observe
from leakgauge.harness.measurement.auxiliary import auxiliary_images
from leakgauge.harness.measurement.context import Context
from leakgauge.harness.measurement.operating_point import PointMeasurement
from leakgauge.harness.scoring import guards
from leakgauge.harness.search.space import Space
from leakgauge.harness.suite.planning import build_attack, content_hash, missing_knowledge
from leakgauge.harness.suite.registry import create
from leakgauge.harness.suite.schema import NamedPlugin
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams


class LeakageProxy:
    """Fits the proxy attack on the attacker's images and scores it on the search images.

    Args:
        space: The space, which has a proxy.
        context: Task, victim and sizes.
        images: The search images.

    Raises:
        ConfigError: The proxy or a floor is no reconstruction attack.
        AccessDeniedError: It needs more than its threat model grants.
    """

    def __init__(self, space: Space, context: Context, images: ImageSet) -> None:
        assert space.proxy is not None
        self._proxy, self._context, self._images = space.proxy, context, images
        granted = self._proxy.threat_model.auxiliary
        if granted.n is not None:
            raise ConfigError(
                "the proxy has a number of images of its own",
                where="proxy.threat_model.auxiliary.n",
                hint="write proxy: {auxiliary: 512}",
            )
        own = granted.model_copy(update={"n": self._proxy.auxiliary})
        self.auxiliary = auxiliary_images(context.task, self._proxy.threat_model.model_copy(update={"auxiliary": own}))
        self._metric = create("metrics", "psnr_db", {}, where="proxy")
        for config in (self._proxy.attack, *self._proxy.floors):
            self._check(config)

    def _check(self, config: NamedPlugin) -> None:
        missing = missing_knowledge(config, self._proxy.threat_model)
        if missing:
            raise ConfigError(f"attack {config.label!r} needs the {missing}", where="proxy", hint="grant it there")
        if self._proxy.threat_model.observer != "server":
            raise ConfigError("the proxy observes as the server", where="proxy.threat_model", hint="observer: server")
        if not isinstance(build_attack(config), Attack):
            raise ConfigError(
                f"{config.label!r} rebuilds no images", where="proxy", hint="name a reconstruction attack"
            )

    def leakage(self, attacked: Defense, point: PointMeasurement) -> float:
        """Returns the mean leakage in dB over the search images (``leakgauge.harness.search.space.Proxy``).

        Args:
            attacked: The operating point, prepared, for the attacker's own images.
            point: It as measured on the search images.
        """
        height, width = self._images.pixels.shape[2:]
        view = GrantedView(
            self._context.victim,
            attacked,
            self._proxy.threat_model,
            image_shape=(3, int(height), int(width)),
            streams=Streams(0, ("attacker",)),
            batch_size=self._context.batch_size,
            device=self._context.device,
            preparation=point.preparation,
        )
        model = self._proxy.threat_model
        seen = observe(point.transmission, model, attacked.grid, point.output, Streams(0, ("evaluation", "observer")))
        scores = self._psnr_db(self._proxy.attack, view.anew(), seen)
        if self._proxy.floors:
            floors = [self._psnr_db(floor, view.anew(), seen) for floor in self._proxy.floors]
            # The floor that is best on average: the best on each image is chosen by who knows the image.
            scores = scores - max(floors, key=lambda floor: float(floor.double().mean()))
        return float(scores.double().mean())

    def _psnr_db(self, config: NamedPlugin, view: GrantedView, seen: Observation) -> Tensor:
        """Returns (B,) PSNR of an attack on the search images."""
        attack = build_attack(config)
        assert isinstance(attack, Attack)
        streams = Streams(0, ("attack", content_hash(config.plugin.model_dump())))
        guards.fit(attack, view, self.auxiliary.clone(), streams.child("fit"))
        rebuilt = guards.reconstruct(attack, seen.clone(), view.image_shape, streams.child("reconstruct"))
        scores: Tensor = self._metric.score(self._images.images(), rebuilt.float() / 255.0)
        return scores
