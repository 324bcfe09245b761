"""Measures one exposure: the defense's cost and quality once, then every attack against it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakgauge.harness.contracts.link import Encoded
from leakgauge.harness.contracts.questions import QuestionTask
from leakgauge.harness.errors import FailedCellsError, LeakgaugeError, ResourceError, SpoiledError, StoreError
from leakgauge.harness.measurement.attack_run import Attacked, run_attack
from leakgauge.harness.measurement.attacker_view import GrantedView, overhear
from leakgauge.harness.measurement.context import RunContext
from leakgauge.harness.measurement.operating_point import PointMeasurement, measure
from leakgauge.harness.measurement.transmitting import Cached, compute_anew
from leakgauge.harness.store.cell_record import CellHead, CellIdentity, CellRecord, FailedRecord, Kinds
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


@dataclass(frozen=True)
class ExposureMeasurement:
    """An exposure as measured.

    Args:
        point: Its operating point, on the evaluation images.
        observation: What the attacker observes of the evaluation images.
        kinds: Answers by kind of question; empty where the task asks none.
        hides: What keeps the attacker from knowing where tokens belong; empty where nothing does.
    """

    point: PointMeasurement
    observation: Observation
    kinds: Kinds
    hides: str


def recall_through(cache: TokenCache, context: RunContext, exposure: Exposure) -> Cached:
    """Returns a look-up of tokens by all that decides them: data, weights, seed, defense, code and machine.

    The threat model and the attack do not enter, so that all of them share one run of the victim. The channel does:
    a defense may well adapt what it sends to it.
    """
    decides = {
        "data": exposure.data_key,
        "defense": exposure.defense.model_dump(),
        "seed": exposure.seed,
        "batch_size": context.batch_size,
        "machine": machine_of(context.device),
        "threads": torch.get_num_threads(),
        "code": code_digest(),
    }

    def cached(name: str, compute: Callable[[], Encoded]) -> Encoded:
        return cache.encoded(content_hash({**decides, "set": name}), compute)

    return cached


def measure_exposure(context: RunContext, exposure: Exposure, cached: Cached = compute_anew) -> ExposureMeasurement:
    """Measures the operating point of an exposure, and what its attacker observes of the evaluation images."""
    defense = build_defense(exposure.defense, exposure.point.name, context.victim, context.device)
    streams = Streams(exposure.seed, ("evaluation",))
    point = measure(context, defense, context.evaluation, streams, cached=cached, timed=True)
    seen, received = overhear(point, exposure.threat_model, streams)
    hides = hidden_layout(received, exposure.threat_model)
    return ExposureMeasurement(point, seen, answers_by_kind(context, point.output), hides)


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


def answers_by_kind(context: RunContext, output: Tensor) -> Kinds:
    """Returns the right answers of a defense and of the unmodified victim by kind of question; empty without questions.

    Args:
        context: What the run shares.
        output: (B, Q, L) the defense's answers.
    """
    if not isinstance(context.task, QuestionTask):
        return {}
    target = context.task.target(context.evaluation)
    found, base = (context.task.by_kind(o.clone(), target.clone()) for o in (output, context.output))
    return {
        kind: {"right": right.tolist(), "base": base[kind][0].tolist(), "questions": asked.tolist()}
        for kind, (right, asked) in found.items()
    }


def identity(context: RunContext, cell: Cell) -> CellIdentity:
    """Returns the columns that name a cell."""
    exposure = cell.exposure
    snr_db = exposure.channel.plugin.options.get("snr_db")
    return CellIdentity(
        cell=cell.key,
        task=f"{context.task.name} v{context.task.version}",
        defense=exposure.defense.name,
        operating_point=exposure.point.name,
        channel=exposure.channel.label,
        snr_db=float(snr_db) if isinstance(snr_db, int | float) else None,
        attack=cell.attack.label,
        threat_model=exposure.threat_model.name,
        seed=exposure.seed,
    )


def head_of(context: RunContext, cell: Cell, measured: ExposureMeasurement | None) -> CellHead:
    """Returns what a cell holds whatever becomes of its attack; no costs where its exposure could not be measured."""
    head = CellHead(identity(context, cell), cell.attack.plugin.name, content_hash(cell_code(context.suite, cell)))
    if measured is None:
        return head
    point = measured.point
    costs = {**point.costs, "quality_base": context.quality_base}
    return replace(
        head,
        costs={name: values.tolist() for name, values in costs.items()},
        latency_ms=point.latency_ms,
        kinds=measured.kinds,
        resolved=point.resolved,
    )


def run_exposure(
    context: RunContext,
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
    cached = recall_through(cache, context, exposure)
    measured: ExposureMeasurement | None = None
    failure: LeakgaugeError | None = None
    tell_begun(f"measuring {exposure.point.name}")
    try:
        with contained("measuring", f"operating point {exposure.point.name!r}"):
            measured = measure_exposure(context, exposure, cached)
            view = _view(context, exposure, measured, cached)
    except StoreError:
        raise
    except LeakgaugeError as error:
        failure, measured = error, None
    for cell in cells:
        tell_begun(f"{cell.attack.label} on {exposure.point.name}")
        head = head_of(context, cell, measured)
        found: Attacked | None = None
        record: CellRecord
        try:
            if failure is not None:
                raise failure
            assert measured is not None
            own = view.anew()
            with contained("running", f"attack {cell.attack.label!r}"):
                observed = measured.observation.clone()
                found = run_attack(context, cell, observed, own, head, measured.hides)
            own.check_victim()
            record = found.record
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
            record = FailedRecord(head, str(error), trace)
            store.log(f"{cell.attack.label} on {exposure.point.name} failed: {error}\n{trace}")
        store.write_cell(record, *(found[1:] if found else ()))
        finished(cell, record.status)
        if fail_fast and isinstance(record, FailedRecord):
            raise FailedCellsError(
                record.reason,
                where=f"{exposure.point.name} / {exposure.channel.label} / {cell.attack.label}",
                hint="the run was to stop at the first failure; the same command resumes it",
            )
    store.log(
        f"{exposure.point.name}: the victim ran on {cache.misses} image sets; {cache.hits} were in the token cache"
    )


def _view(context: RunContext, exposure: Exposure, measured: ExposureMeasurement, cached: Cached) -> GrantedView:
    height, width = context.evaluation.pixels.shape[2:]
    return GrantedView(
        context.victim,
        measured.point.defense,
        exposure.threat_model,
        image_shape=(3, int(height), int(width)),
        streams=Streams(exposure.seed, ("attacker",)),
        batch_size=context.batch_size,
        device=context.device,
        preparation=measured.point.preparation,
        cached=cached,
    )
