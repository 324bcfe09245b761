"""Writes down what runs found to be stronger than the best known: ``python -m leakgauge.benchmarks.best_known RUN...``.

Of every operating point the one attack that rebuilds most is kept, and of what is kept already the stronger; whether a
converged attacker came near is kept beside it, and what all that came near took. The diff says what moved.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from leakgauge.benchmarks.studies.command_line import start
from leakgauge.harness.errors import StoreError
from leakgauge.harness.run.best_known import (
    FILE,
    REFERENCE_DB,
    BestKnown,
    BestKnownFile,
    Effort,
    RunBest,
    achieved,
    read_best_known,
)
from leakgauge.harness.store.provenance import code_identity
from leakgauge.harness.store.run_folder import RunFolder, write_atomic
from leakgauge.harness.suite.schema import Suite, parse_suite

SHIPPED = Path(__file__).parent / FILE
DIGITS = 3


def entries_of(run: RunFolder) -> list[BestKnown]:
    """Returns the strongest attack on every operating point of a run, where its leakage is scored for all seeds.

    Raises:
        StoreError: The run cannot be read, or does not say what it measured.
    """
    manifest = run.manifest()
    suite = parse_suite(manifest.get("suite") or {}, where=str(run.path / "run.json"))
    floors = {label for label, entry in manifest.get("attacks", {}).items() if entry.get("floor")}
    rows = [{str(key): value for key, value in row.items()} for row in run.cells().to_dict("records")]
    found = achieved(suite, manifest.get("data") or {}, rows, floors)
    scored = [one for one in found if math.isfinite(one.strongest.mean("leakage"))]
    if not scored:
        raise StoreError(
            "nothing to write down: no operating point with an attack and a floor that are scored for all seeds",
            where=str(run.path),
            hint="run the suite to its end",
        )
    return [_entry(run, suite, one) for one in scored]


def _entry(run: RunFolder, suite: Suite, one: RunBest) -> BestKnown:
    manifest, strongest = run.manifest(), one.strongest
    curve = run.read_curve(str(strongest.cells[0]["cell"]))
    provenance = manifest.get("provenance") or {}
    options = {attack.label: attack.plugin.model_dump(mode="json") for attack in suite.attacks}
    seconds = strongest.mean("attack_seconds")
    commit = code_identity(provenance) + (" with changes" if provenance.get("dirty") else "")
    efforts = [
        Effort(
            attack=attacker.attack,
            options=options[attacker.attack],
            psnr_db=round(attacker.psnr_db, DIGITS),
            attack_seconds=round(attacker.mean("attack_seconds"), 1),
            seeds=suite.seeds,
            commit=commit,
        )
        for attacker in one.attackers
        if math.isfinite(attacker.mean("attack_seconds"))
    ]
    sessions = manifest.get("sessions") or [{}]
    return BestKnown(
        key=one.exposure.key,
        operating_point=one.place[0],
        channel=one.place[1],
        threat_model=one.place[2],
        psnr_db=round(strongest.psnr_db, DIGITS),
        leakage=round(strongest.mean("leakage"), DIGITS),
        converged_db=None if one.converged_db is None else round(one.converged_db, DIGITS),
        attack=strongest.attack,
        options=options[strongest.attack],
        steps=None if curve is None else curve.planned_steps,
        attack_seconds=round(seconds, 1) if math.isfinite(seconds) else None,
        efforts=near(round(strongest.psnr_db, DIGITS), efforts),
        seeds=suite.seeds,
        evaluation_images=int(strongest.cells[0]["n"]),
        suite=suite.name,
        commit=commit,
        version=str(provenance.get("version", "")),
        date=str(sessions[-1].get("started", ""))[:10],
        exposure=one.exposure,
    )


def near(psnr_db: float, efforts: Iterable[Effort]) -> tuple[Effort, ...]:
    """Returns the efforts that come near a PSNR, the strongest first: of one attacker the strongest, then the first."""
    found: dict[str, Effort] = {}
    for one in efforts:
        if one.key not in found or one.psnr_db > found[one.key].psnr_db:
            found[one.key] = one
    close = (one for one in found.values() if psnr_db - one.psnr_db <= REFERENCE_DB)
    return tuple(sorted(close, key=lambda one: (-one.psnr_db, one.key)))


def merged(known: BestKnownFile, found: Iterable[BestKnown]) -> tuple[BestKnownFile, list[str]]:
    """Returns what is known with what was found, and what that changes, a line each.

    The stronger of two entries is kept, and the stronger of their converged attackers, whichever entry that is of.
    Efforts add up, less those of attackers that are known already and those that are no longer near.
    """
    entries = {entry.key: entry for entry in known.entries}
    said = []
    for new in found:
        old = entries.get(new.key)
        kept = new if old is None or new.psnr_db > old.psnr_db else old
        converged = [one.converged_db for one in (old, new) if one is not None and one.converged_db is not None]
        efforts = near(kept.psnr_db, [effort for one in (old, new) if one is not None for effort in one.efforts])
        both = kept.model_copy(update={"converged_db": max(converged, default=None), "efforts": efforts})
        entries[new.key] = both
        place = f"{new.operating_point} ({new.channel}, {new.threat_model})"
        if old is None:
            said.append(f"+ {place}: {new.psnr_db:.2f} dB by {new.said}")
        elif kept is new:
            said.append(f"{place}: {new.psnr_db:.2f} dB by {new.said}, was {old.psnr_db:.2f} by {old.said}")
        elif both.converged_db != old.converged_db:
            said.append(f"{place}: a converged attacker reaches {new.converged_db:.2f} dB of {old.psnr_db:.2f}")
        elif both != old:
            spent = f"{both.effort_seconds:.0f} s, were {old.effort_seconds:.0f}"
            said.append(f"{place}: attackers near {old.psnr_db:.2f} dB took {spent}")
    ordered = sorted(entries.values(), key=lambda one: (one.exposure.task, one.suite, one.key))
    return BestKnownFile(entries=tuple(ordered)), said


def write_best_known(file: BestKnownFile, path: Path) -> None:
    """Writes the file whole: an entry a block, a field a line, so that a review sees what moved.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    data: dict[str, Any] = file.model_dump(mode="json")
    blocks = [
        "  {\n" + ",\n".join(f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in entry.items()) + "\n  }"
        for entry in data["entries"]
    ]
    inner = "\n" + ",\n".join(blocks) + "\n " if blocks else ""
    write_atomic(path, f'{{\n "schema_version": {data["schema_version"]},\n "entries": [{inner}]\n}}\n'.encode())


def main(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    file: Annotated[Path, typer.Option(help="The file to update; the shipped one unless another is named.")] = SHIPPED,
) -> None:
    """Writes down where runs rebuild more than the best known, and where their converged attackers come near it."""
    known = read_best_known(file) if file.exists() else BestKnownFile()
    found = [entry for path in runs for entry in entries_of(RunFolder.open(path))]
    new, said = merged(known, found)
    if said:
        write_best_known(new, file)
    for line in said or ["nothing here is stronger than what is known"]:
        typer.echo(line)


if __name__ == "__main__":
    start(main)
