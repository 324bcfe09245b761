"""Says what a run would do: tokens that each operating point keeps, and how long and with what it would be at it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from leakgauge.harness.contracts.defense import Previewable
from leakgauge.harness.errors import LeakgaugeError
from leakgauge.harness.measurement.context import RunContext
from leakgauge.harness.run.executors import one_thread
from leakgauge.harness.run.expected_time import Timed, clock, expected
from leakgauge.harness.run.plan import Plan
from leakgauge.harness.run.runner import left_of, open_store
from leakgauge.harness.store.parts import Parts
from leakgauge.harness.store.provenance import device_name
from leakgauge.harness.store.run_folder import RunFolder
from leakgauge.harness.suite.planning import build_defense, by_exposure, defense_config
from leakgauge.harness.system.containment import contained
from leakgauge.harness.values.images import SPLITS
from leakgauge.harness.values.seeding import Streams

MOST_NEIGHBOURS = 50

LOOKED_AT = 16
"""Calibration images that are run through the edge: enough to tell a third from a tenth, few enough for seconds."""


def forecast(plan: Plan, folder: Path, workers: int, *, retry_failed: bool) -> Iterator[str]:
    """Yields what a run of a plan in a folder would do, a line each; writes nothing.

    Times are those of cells of the same attack that are in the folder, or in runs beside it that measured the same
    attack on the same task, with as many images, under the same threat models, on the same kind of device.

    Raises:
        StoreError: The folder holds something else.
    """
    store, _ = open_store(plan, folder)
    parts = Parts(store, plan.codes)
    left = left_of(plan, parts, retry_failed=retry_failed) if store.exists() else plan.cells
    if store.exists():
        yield from parts.remarks(plan.code, retry_failed)
    failed = parts.counts()["failed"] if store.exists() and retry_failed else 0
    again = f", {failed} of them failed before" if failed else ""
    points = len(by_exposure(left))
    yield f"would measure {len(left)} of {len(plan.cells)} cells{again}, on {points} exposures"
    if not left:
        yield "nothing is left to do but to write the tables"
        return
    timed, source = _timed(plan, store)
    found = expected(left, timed)
    for label, count in Counter(cell.attack.label for cell in left).items():
        each = f"about {clock(found.attacks[label])} each" if label in found.attacks else "never timed here"
        yield f"  attack {label}: {count} cells, {each}"
    if found.untimed:
        yield f"time: not known; no run in or beside the folder timed the attacks of {found.untimed} cells"
    else:
        busy = max(1, min(workers, points))
        about = clock(found.seconds / busy)
        yield f"time: about {about} for the attacks on {busy} worker(s), by {source}; measuring and scoring come on top"
    pixels = sum(plan.context.task.split(name).pixels.nbytes for name in SPLITS)
    yield f"memory: {pixels / 2**20:.0f} MiB of images a worker; what victim and attacks need beside them is not known"
    yield "nothing was measured or written (--dry-run)"


def _timed(plan: Plan, store: RunFolder) -> tuple[dict[str, list[float]], str]:
    """Returns the seconds of attacks by label, and where they were found."""
    own = Timed(store, plan.cells).by_attack() if store.exists() else {}
    wanted = {cell.attack.label for cell in plan.cells}
    if wanted <= set(own):
        return own, "cells in the folder"
    found, runs = dict(own), 0
    for path in sorted(store.path.absolute().parent.glob("*/run.json"))[:MOST_NEIGHBOURS]:
        if path.parent == store.path.absolute():
            continue
        beside: dict[str, list[float]] = {}
        with suppress(LeakgaugeError):
            beside = _same(plan, RunFolder.open(path.parent))
        runs += bool(beside)
        for label, seconds in beside.items():
            if label not in own:
                found.setdefault(label, []).extend(seconds)
    return found, f"cells in the folder and in {runs} run(s) beside it" if own else f"{runs} run(s) beside it"


def _same(plan: Plan, other: RunFolder) -> dict[str, list[float]]:
    """Returns the seconds that another run's cells took for attacks of this plan, where nothing made them differ."""
    stated = other.manifest()
    theirs, ours = stated["suite"], plan.suite.model_dump(mode="json")
    if any(theirs.get(name) != ours[name] for name in ("task", "defense", "evaluation_images", "threat_models")):
        return {}
    if (stated.get("provenance") or {}).get("device_name") != device_name(plan.context.device):
        return {}
    attacks = theirs.get("attacks")
    attacked = attacks if isinstance(attacks, list) else []
    labels = [attack["label"] for attack in ours["attacks"] if attack in attacked]
    cells = other.cells()
    done = cells[(cells["status"] == "done") & cells["attack"].isin(labels) & cells["attack_seconds"].notna()]
    return {str(label): list(map(float, seconds)) for label, seconds in done.groupby("attack")["attack_seconds"]}


def kept_tokens(context: RunContext) -> Iterator[tuple[str, int, float]]:
    """Yields (name, images, mean share of the tokens that is left after the edge) of each operating point.

    The images are evenly spaced over the calibration split, and what is left to calibration is calibrated on them
    alone, so that a run may find slightly other thresholds. Defenses that do not tell are left out.

    Raises:
        LeakgaugeError: A defense cannot run, or what is to be kept cannot be reached.
    """
    suite = context.suite
    images = context.task.split("calibration").evenly_spaced(LOOKED_AT).clone()
    rng = Streams(suite.seeds[0], ("evaluation",)).child("encode")
    for point in suite.operating_points:
        config = defense_config(suite, point, suite.channels[0])
        defense = build_defense(config, point.name, context.victim, context.device)
        if not isinstance(defense, Previewable):
            continue
        with one_thread(), contained("counting tokens", f"operating point {point.name!r}"):
            kept = defense.tokens_kept(images, rng)
        yield point.name, len(images), kept
