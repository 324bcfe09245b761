"""Measures one exposure: the defense's cost and quality once, then every attack against it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leakgauge.harness.contracts.defense import Defense
from leakgauge.harness.contracts.link import Encoded, Transmission
from leakgauge.harness.contracts.questions import QuestionTask
from leakgauge.harness.errors import FailedCellsError, LeakgaugeError, ResourceError, SpoiledError, StoreError
from leakgauge.harness.measurement.attack_run import run_attack
from leakgauge.harness.measurement.attacker_view import GrantedView, Preparation, eavesdropping_channel, observe
from leakgauge.harness.measurement.context import Bench
from leakgauge.harness.measurement.line import Cached, compute_anew
from leakgauge.harness.measurement.transmitting import respond_all, send, transmit_all
from leakgauge.harness.scoring import guards
from leakgauge.harness.scoring.compute import measure_flops, measure_latency_ms
from leakgauge.harness.store.code_digest import cell_code, code_digest
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.store.token_cache import TokenCache
from leakgauge.harness.suite.planning import Cell, Exposure, build_defense, content_hash
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.system.containment import contained
from leakgauge.harness.system.machine import machine_of
from leakgauge.harness.system.standing import tell_begun
from leakgauge.harness.values.observation import Observation
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

LATENCY_IMAGES = 19
Kinds = dict[str, dict[str, list[float]]]
"""For each kind of question, by image: ``right`` answers, those of the unmodified victim (``base``), ``questions``."""


@dataclass(frozen=True)
class PointMeasurement:
    """An exposure as measured: per-image costs, quality, and what the attacker observes of the evaluation images.

    ``preparation`` is what the defense was prepared with, None where it needs none; ``kinds`` is empty where the task
    asks no questions; ``hides`` says what keeps the attacker from knowing where tokens belong, else it is empty;
    ``resolved`` is what calibration made of the operating point, empty where the suite leaves nothing to it.
    """

    defense: Defense
    preparation: Preparation | None
    costs: dict[str, Tensor]
    latency_ms: float
    observation: Observation
    kinds: Kinds
    hides: str
    resolved: dict[str, Any]


def link_costs(transmission: Transmission, bandwidth_hz: float) -> dict[str, Tensor]:
    """Returns what sending each image cost, (B,) a column, by its name in ``leakgauge.harness.values.columns``.

    Args:
        transmission: What the server received.
        bandwidth_hz: Complex symbols a second, assumed.
    """
    encoded, uses = transmission.encoded, transmission.channel_uses.double()
    lost = torch.zeros(len(uses), dtype=torch.long) if transmission.lost is None else transmission.lost
    efficiency = 8 * encoded.payload_bytes.double() / uses
    return {
        "tokens": encoded.decoded.lengths,
        "payload_bytes": encoded.payload_bytes,
        "side_bytes": encoded.side_bytes,
        "channel_uses": transmission.channel_uses,
        "air_time_ms": uses / bandwidth_hz * 1e3,
        "spectral_efficiency_bits": torch.where(uses > 0, efficiency, torch.nan),
        "lost_tokens": lost,
    }


def recall_through(cache: TokenCache, bench: Bench, exposure: Exposure) -> Cached:
    """Returns a look-up of tokens by all that decides them: data, weights, seed, defense, code and machine.

    The threat model and the attack do not enter, so that all of them share one run of the victim. The channel does:
    a defense may well adapt what it sends to it.
    """
    decides = {
        "data": exposure.data_key,
        "defense": exposure.defense.model_dump(),
        "seed": exposure.seed,
        "batch_size": bench.suite.batch_size,
        "machine": machine_of(bench.device),
        "threads": torch.get_num_threads(),
        "code": code_digest(),
    }

    def cached(name: str, compute: Callable[[], Encoded]) -> Encoded:
        return cache.encoded(content_hash({**decides, "set": name}), compute)

    return cached


def measure_exposure(bench: Bench, exposure: Exposure, cached: Cached = compute_anew) -> PointMeasurement:
    """Transmits the evaluation images once and measures quality, compute and bandwidth.

    All of these are the server's; only the observation is an eavesdropper's, where the threat model has one.
    """
    defense = build_defense(exposure.defense, exposure.point.name, bench.victim, bench.device)
    streams = Streams(exposure.seed, ("evaluation",))
    preparation = None
    if defense.needs_calibration:
        preparation = Preparation(bench.task.split("calibration").clone(), streams.child("prepare"))
        defense.prepare(*preparation)
    images = bench.evaluation
    encoded = cached(
        f"evaluation {images.full_digest()}",
        lambda: transmit_all(defense, images, streams, bench.suite.batch_size),
    )
    transmission = send(defense, encoded, streams.child("channel"))
    questions = bench.task.questions(images)
    output = respond_all(defense, transmission, bench.suite.batch_size, questions)
    flops = measure_flops(defense, images, transmission, streams, questions, output)
    costs = {
        "quality": guards.quality(bench.task, output, bench.task.target(images)),
        "quality_base": bench.quality_base,
        "gflops_edge": flops.edge,
        "gflops_total": flops.total,
        **{f"gflops_{name}": values for name, values in flops.parts.items()},
        **link_costs(transmission, bench.suite.bandwidth_hz),
    }
    eavesdropping = eavesdropping_channel(exposure.threat_model, defense)
    overheard = transmission
    if eavesdropping is not None:
        overheard = send(defense, encoded, streams.child("eavesdropper"), eavesdropping)
    seen = observe(overheard, exposure.threat_model, defense.grid, output, streams.child("observer"))
    hides = hidden_layout(overheard.received, exposure.threat_model)
    sample = images.select(range(0, len(images), max(1, len(images) // LATENCY_IMAGES)))
    latency_ms = measure_latency_ms(defense, sample, streams, bench.device, bench.task.questions(sample))
    if questions is not None:
        costs["questions"] = torch.tensor(questions.counts)
    kinds = answers_by_kind(bench, output)
    return PointMeasurement(defense, preparation, costs, latency_ms, seen, kinds, hides, defense.resolved())


def hidden_layout(batch: TokenBatch, model: ThreatModel) -> str:
    """Says what keeps an attacker from knowing where tokens belong; empty where nothing does.

    Decided by the tokens that were received, not by the name of a method: the payloads are laid in order where every
    patch has a token of its own, at its place, and there is no other.

    Args:
        batch: What the attacker received, with its true merge map.
        model: The threat model.
    """
    if model.knows.merge_map:
        return ""
    if not model.knows.order:
        return "the order of the tokens is withheld"
    patches = batch.merge_map.shape[1]
    own = torch.arange(batch.prefix, batch.prefix + patches, device=batch.merge_map.device)
    moved = (batch.merge_map != own).any(dim=1) | (batch.lengths != batch.prefix + patches)
    if not bool(moved.any()):
        return ""
    return (
        f"tokens were merged, dropped or moved in {float(moved.double().mean()):.0%} of the images, the map is withheld"
    )


def answers_by_kind(bench: Bench, output: Tensor) -> Kinds:
    """Returns the right answers of a defense and of the unmodified victim by kind of question; empty without questions.

    Args:
        bench: The bench.
        output: (B, Q, L) the defense's answers.
    """
    if not isinstance(bench.task, QuestionTask):
        return {}
    target = bench.task.target(bench.evaluation)
    found, base = (bench.task.by_kind(o.clone(), target.clone()) for o in (output, bench.output))
    return {
        kind: {"right": right.tolist(), "base": base[kind][0].tolist(), "questions": asked.tolist()}
        for kind, (right, asked) in found.items()
    }


def identity(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Returns the columns that name a cell."""
    exposure = cell.exposure
    return {
        "cell": cell.key,
        "task": f"{bench.task.name} v{bench.task.version}",
        "defense": exposure.defense.name,
        "operating_point": exposure.point.name,
        "channel": exposure.channel.label,
        "snr_db": exposure.channel.plugin.options.get("snr_db"),
        "attack": cell.attack.label,
        "threat_model": exposure.threat_model.name,
        "seed": exposure.seed,
    }


def run_exposure(
    bench: Bench,
    cells: list[Cell],
    store: RunFolder,
    finished: Callable[[Cell, str], None],
    *,
    fail_fast: bool = False,
) -> None:
    """Measures one exposure and runs its attacks, storing each cell as it is done.

    A cell that fails is stored as failed, with the reason, and the others go on; so are all cells of an operating point
    that cannot be measured. What fails for lack of memory is not stored, and so measured by the next run.

    Raises:
        FailedCellsError: A cell failed, and none is to be run after it (``fail_fast``).
        ResourceError: The disk is full.
        StoreError: The run folder cannot be written.
    """
    exposure = cells[0].exposure
    cache = TokenCache.from_environment()
    cached = recall_through(cache, bench, exposure)
    shared: dict[str, Any] = {"costs": {}, "latency_ms": None}
    failure: LeakgaugeError | None = None
    tell_begun(f"measuring {exposure.point.name}")
    try:
        with contained("measuring", f"operating point {exposure.point.name!r}"):
            measured = measure_exposure(bench, exposure, cached)
            view = _view(bench, exposure, measured, cached)
        shared = {
            "costs": {name: values.tolist() for name, values in measured.costs.items()},
            "latency_ms": measured.latency_ms,
            **({"kinds": measured.kinds} if measured.kinds else {}),
            **({"resolved": measured.resolved} if measured.resolved else {}),
        }
    except StoreError:
        raise
    except LeakgaugeError as error:
        failure = error
    for cell in cells:
        tell_begun(f"{cell.attack.label} on {exposure.point.name}")
        try:
            if failure is not None:
                raise failure
            own = view.anew()
            with contained("running", f"attack {cell.attack.label!r}"):
                outcome = {
                    "status": "done",
                    **run_attack(bench, cell, measured.observation.clone(), own, store, measured.hides),
                }
            own.check_victim()
        except (StoreError, SpoiledError):
            raise
        except ResourceError as error:
            if error.missing == "disk":
                raise
            store.note_shortage(cell.key, str(error))
            finished(cell, "not measured")
            continue
        except LeakgaugeError as error:
            trace = "".join(traceback.format_exception(error))
            outcome = {"status": "failed", "reason": str(error), "traceback": trace, "scores": {}, "floor": False}
            store.log(f"{cell.attack.label} on {exposure.point.name} failed: {error}\n{trace}")
        code = content_hash(cell_code(bench.suite, cell))
        named = {"identity": identity(bench, cell), "plugin": cell.attack.plugin.name, "code": code}
        store.write_part(cell.key, {**named, **shared, **outcome})
        finished(cell, outcome["status"])
        if fail_fast and outcome["status"] == "failed":
            raise FailedCellsError(
                outcome["reason"],
                where=f"{exposure.point.name} / {exposure.channel.label} / {cell.attack.label}",
                hint="the run was to stop at the first failure; the same command resumes it",
            )
    store.log(
        f"{exposure.point.name}: the victim ran on {cache.misses} image sets; {cache.hits} were in the token cache"
    )


def _view(bench: Bench, exposure: Exposure, measured: PointMeasurement, cached: Cached) -> GrantedView:
    height, width = bench.evaluation.pixels.shape[2:]
    return GrantedView(
        bench.victim,
        measured.defense,
        exposure.threat_model,
        image_shape=(3, int(height), int(width)),
        streams=Streams(exposure.seed, ("attacker",)),
        batch_size=bench.suite.batch_size,
        device=bench.device,
        preparation=measured.preparation,
        cached=cached,
    )
