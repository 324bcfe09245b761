"""One attempt: an attack or probe is fitted, asked about the images under attack, and scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leakgauge.harness.contracts.attack import Attack, AttackerView
from leakgauge.harness.contracts.probing import LABEL, Attacker, AttributeProbe, IdentityProbe, adapts
from leakgauge.harness.measurement.attacker_view import GrantedView
from leakgauge.harness.measurement.attributes import answers
from leakgauge.harness.measurement.auxiliary import auxiliary_images
from leakgauge.harness.measurement.context import RunContext
from leakgauge.harness.measurement.convergence import (
    ACCURACY,
    Gradients,
    Score,
    Unconverged,
    data_limited,
    unconverged,
    watched,
)
from leakgauge.harness.scoring import guards
from leakgauge.harness.scoring.attributes import auc_interval, informed_guess
from leakgauge.harness.scoring.identification import ranked_first, reid_top1
from leakgauge.harness.scoring.judging import JudgedGallery
from leakgauge.harness.scoring.leakage import unrelated
from leakgauge.harness.scoring.metrics import ImageScores, guarded_score, score_images
from leakgauge.harness.scoring.reconstruction import Psnr
from leakgauge.harness.scoring.statistics import bootstrap_streams
from leakgauge.harness.store.cell_record import (
    CellHead,
    MeasuredRecord,
    NamedRecord,
    RankedRecord,
    RebuiltRecord,
    Scores,
)
from leakgauge.harness.suite.planning import Cell, build_attack, content_hash
from leakgauge.harness.values.columns import PERMUTED
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.learning_curve import DOUBLING_DB, LearningCurve
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams

NO_CLASSES = "the victim's answer is no vector of classes"


class Attacked(NamedTuple):
    """What came of one attack, all of which is to be stored.

    Attributes:
        record: What was measured.
        curve: How the attacker learnt; None where it does not train, or keeps no curve.
        images: (B, H, W, 3) reconstructions; None where nothing is rebuilt.
    """

    record: MeasuredRecord
    curve: LearningCurve | None
    images: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class AttackRun:
    """What an attack faces.

    Args:
        context: What the run shares; attacks never see it.
        cell: The cell.
        observation: What is seen of the evaluation images.
        view: The attacker's handle.
        auxiliary: The attacker's images.
        streams: The attack's random streams, one for all operating points: attackers start alike, so that differences
            are the defense's.
        head: What the cell holds whatever becomes of the attack.
        exposure_hides: What hides where tokens belong from the attacker, in words; empty where nothing does.
    """

    context: RunContext
    cell: Cell
    observation: Observation
    view: GrantedView
    auxiliary: ImageSet
    streams: Streams
    head: CellHead
    exposure_hides: str = ""

    def reconstruction(self, attack: Attack) -> Attacked:
        """Rebuilds the evaluation images and scores them."""
        start = time.monotonic()
        with watched() as gradients:
            curve = guards.fit(attack, self.view, self.auxiliary, self.streams.child("fit"))
        shape, rng = self.view.image_shape, self.streams.child("reconstruct")
        rebuilt = guards.reconstruct(attack, self.observation, shape, rng)
        seconds = time.monotonic() - start
        context = self.context
        scores = score_reconstructions(context, context.evaluation.pixels, rebuilt, context.gallery, context.judging)
        lacking = unconverged(attack, curve, gradients, self._refit(self._psnr_db))
        bound = self._blind(attack) or _unadapted(self.context, self.cell, attack)
        record = RebuiltRecord(
            self.head,
            _lists(scores.values),
            scores.reasons,
            None if lacking is None else lacking.why,
            bound,
            seconds,
            None if lacking is None else lacking.could_gain_db,
            floor=attack.floor,
        )
        return Attacked(record, curve, rebuilt.permute(0, 2, 3, 1).numpy())

    def _psnr_db(self, attack: Attacker, view: AttackerView, images: ImageSet, held: Tensor) -> Tensor:
        """Returns (K,) PSNR on held-out images of its own of an attack fitted to ``images``."""
        assert isinstance(attack, Attack)
        guards.fit(attack, view, images, self.streams.child("fit"))
        seen, rng = view.observe(self.auxiliary).select(held), self.streams.child("reconstruct")
        rebuilt = guards.reconstruct(attack, seen, view.image_shape, rng).float() / 255.0
        error = (rebuilt - self.auxiliary.select(held).images()).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
        return -10.0 * error.log10()

    def _blind(self, attack: Attack) -> str:
        """Says that an attack cannot find out where tokens belong, where that is hidden; empty otherwise."""
        hidden = "" if attack.floor else self.exposure_hides
        return f"{hidden}, and this attack cannot find positions" if hidden and attack.layout == "needs order" else ""

    def _refit(self, score: Score, allowed: float = DOUBLING_DB, unit: str = "dB") -> Callable[[], Unconverged | None]:
        """Returns how to measure a closed form with half of the attacker's images."""
        rng = self.streams.child("refit")
        return lambda: data_limited(
            score, lambda: build_attack(self.cell.attack), self.view, self.auxiliary, rng, allowed=allowed, unit=unit
        )

    def attribute(self, probe: AttributeProbe) -> Attacked:
        """Asks for an attribute of the evaluation images, whose own answers the probe never sees."""
        context, where = self.context, f"attacks: {self.cell.attack.label}"
        public = context.task.split("attacker")
        known = answers(context.task, public, probe, where)
        true = answers(context.task, context.evaluation, probe, where)
        classes = int(known.max()) + 1
        own = answers(context.task, self.auxiliary, probe, where).clone()
        start = time.monotonic()
        with watched() as gradients:
            curve = guards.fit_probe(probe, self.view, self.auxiliary, own, classes, self.streams.child("fit"))
        scores = guards.predict(probe, self.observation, classes, self.streams.child("predict"))
        seconds = time.monotonic() - start

        def right(asked: Attacker, view: AttackerView, images: ImageSet, held: Tensor) -> Tensor:
            assert isinstance(asked, AttributeProbe)
            known_here = dict(zip(self.auxiliary.ids, own.tolist(), strict=True))
            answers_here = torch.tensor([known_here[image_id] for image_id in images.ids])
            guards.fit_probe(asked, view, images, answers_here, classes, self.streams.child("fit"))
            seen = view.observe(self.auxiliary).select(held)
            found = guards.predict(asked, seen, classes, self.streams.child("predict"))
            return (found.argmax(dim=1) == own[held]).double()

        refit = self._refit(right, ACCURACY, "right")
        helped = probe.attribute != LABEL
        labels = [images.labels if helped else None for images in (public, context.evaluation)]
        guess = informed_guess(known, labels[0], true, labels[1], classes)
        area = auc_interval(scores, true, context.evaluation.groups, bootstrap_streams(context.suite.seeds[0]))
        record = NamedRecord(
            self.head,
            _lists({"attribute_correct": (scores.argmax(dim=1) == true).float()}),
            unconverged=_caveat_of(probe, curve, gradients, refit),
            lower_bound=_unadapted(self.context, self.cell, probe),
            attack_seconds=seconds,
            chance={"attribute_accuracy": guess.accuracy, "attribute_auc": guess.auc},
            proves_on_baseline=probe.proves_on_baseline,
            attribute=probe.attribute,
            cell_scores={
                "attribute_chance": guess.accuracy,
                "attribute_auc": area.mean,
                "attribute_auc_lo": area.lo,
                "attribute_auc_hi": area.hi,
            },
        )
        return Attacked(record, curve)

    def identity(self, probe: IdentityProbe) -> Attacked:
        """Asks which of the evaluation images, shown without labels and in random order, an observation comes from."""
        evaluation = self.context.evaluation
        # Only who knows their order, labels included, could repeat the draw.
        secret = Streams(self.cell.exposure.seed, ("gallery", evaluation.digest()))
        order = torch.randperm(len(evaluation), generator=secret.torch())
        gallery = ImageSet(evaluation.pixels[order], tuple(evaluation.ids[i] for i in order.tolist()))
        start = time.monotonic()
        with watched() as gradients:
            curve = guards.fit(probe, self.view, self.auxiliary, self.streams.child("fit"))
        # A branch, so that what the edge made of the candidates is not left behind for the next attack.
        scores = guards.rank(probe, self.observation, self.view.branch(), gallery, self.streams.child("rank"))
        seconds = time.monotonic() - start

        def first(asked: Attacker, view: AttackerView, images: ImageSet, held: Tensor) -> Tensor:
            assert isinstance(asked, IdentityProbe)
            guards.fit(asked, view, images, self.streams.child("fit"))
            own = self.auxiliary.select(held)
            shown = ImageSet(own.pixels, own.ids)
            seen = view.observe(self.auxiliary).select(held)
            return ranked_first(
                guards.rank(asked, seen, self.view.branch(), shown, self.streams.child("rank")), torch.arange(len(held))
            )

        refit = self._refit(first, ACCURACY, "right")
        named = ranked_first(scores, torch.argsort(order))
        # It names a candidate itself: whether that is right is no matter of anyone's features.
        record = RankedRecord(
            self.head,
            _lists({"reid_top1": named, "judge_reid_top1": named}),
            unconverged=_caveat_of(probe, curve, gradients, refit),
            lower_bound=_unadapted(self.context, self.cell, probe),
            attack_seconds=seconds,
            chance={"reid_top1": 1.0 / len(gallery)},
            proves_on_baseline=probe.proves_on_baseline,
        )
        return Attacked(record, curve)


def _caveat_of(
    probe: Attacker, curve: LearningCurve | None, gradients: Gradients, refit: Callable[[], Unconverged | None]
) -> str | None:
    """Says why a probe is not shown to be converged; what it may gain is no number of dB."""
    lacking = unconverged(probe, curve, gradients, refit)
    return None if lacking is None else lacking.why


def _lists(scores: Mapping[str, Tensor]) -> Scores:
    return {name: values.tolist() for name, values in scores.items()}


def score_reconstructions(
    context: RunContext, originals: Tensor, rebuilt: Tensor, gallery: Tensor, judging: JudgedGallery
) -> ImageScores:
    """Scores uint8 reconstructions (B, 3, H, W) by the suite's metrics, and by what victim and judge make of them.

    Beside them stands what each scores against the original of another image.

    Args:
        context: What the run shares.
        originals: (B, 3, H, W) uint8.
        rebuilt: (B, 3, H, W) uint8.
        gallery: (B, D) the victim's features of the originals.
        judging: The judge before the originals.
    """
    scores = score_images(context.suite, originals, rebuilt, context.device)
    features, scores.values["label_agreement"] = context.look(rebuilt)
    scores.values["reid_top1"] = reid_top1(features, gallery)
    if bool(scores.values["label_agreement"].isnan().any()):
        scores.reasons["label_agreement"] = NO_CLASSES
    judged = judging.scores(rebuilt)
    blind = {PERMUTED.name: _permuted_psnr_db(context, originals, rebuilt)}
    return ImageScores({**scores.values, **judged.values, **blind}, {**scores.reasons, **judged.reasons})


def _permuted_psnr_db(context: RunContext, originals: Tensor, rebuilt: Tensor) -> Tensor:
    """Returns (B,) PSNR of what was rebuilt of another image, the same for all cells of a run; NaN where none is.

    The dB are those of ``score_reconstructions``; arguments as there.
    """
    groups = context.evaluation.groups
    clusters = np.arange(len(originals)) if groups is None else groups.numpy()
    others = unrelated(clusters, Streams(context.suite.seeds[0], ("unrelated images",)))
    if others is None:
        return torch.full((len(originals),), torch.nan)
    shown = rebuilt[torch.from_numpy(others)]
    return guarded_score(Psnr(), *(images.to(context.device).float() / 255.0 for images in (originals, shown)))


def run_attack(
    context: RunContext,
    cell: Cell,
    observation: Observation,
    view: GrantedView,
    head: CellHead,
    hides: str = "",
) -> Attacked:
    """Runs one attack against one exposure; returns what to store.

    Raises:
        LeakgaugeError: The attack failed, or asks for what the task does not have.
    """
    attacker = build_attack(cell.attack)
    streams = Streams(cell.exposure.seed, ("attack", content_hash(cell.attack.plugin.model_dump())))
    auxiliary = auxiliary_images(context.task, cell.exposure.threat_model)
    one = AttackRun(context, cell, observation, view, auxiliary, streams, head, hides)
    if isinstance(attacker, AttributeProbe):
        return one.attribute(attacker)
    if isinstance(attacker, IdentityProbe):
        return one.identity(attacker)
    return one.reconstruction(attacker)


def _unadapted(context: RunContext, cell: Cell, attacker: Attacker) -> str:
    """Says that an attacker was not trained on what it attacks; empty where it was, for floors, and undefended."""
    undefended = cell.exposure.point.name == context.suite.baseline_point
    if undefended or getattr(attacker, "floor", False) or (cell.exposure.threat_model.adaptive and adapts(attacker)):
        return ""
    return "the attacker was trained on the undefended pipeline and did not adapt to this operating point"
