"""Scores the stored reconstructions of a run again, without running anything else."""

from __future__ import annotations

from datetime import UTC, datetime

import torch

from leakgauge.harness.errors import DataError, StoreError
from leakgauge.harness.measurement.attack_run import score_reconstructions
from leakgauge.harness.measurement.context import RunContext
from leakgauge.harness.run.plan import data_of
from leakgauge.harness.run.runner import suite_of
from leakgauge.harness.scoring.judging import JudgedGallery
from leakgauge.harness.scoring.measures import described
from leakgauge.harness.scoring.metrics import metrics_of
from leakgauge.harness.store.assembly import Assembler
from leakgauge.harness.store.cell_record import RebuiltRecord
from leakgauge.harness.store.code_digest import Code, differences, scoring_code
from leakgauge.harness.store.run_folder import ORIGINALS, RunFolder
from leakgauge.harness.suite.planning import content_hash
from leakgauge.harness.system.files.locking import exclusive
from leakgauge.harness.system.json_data import Json
from leakgauge.harness.values.stored_shapes import RunManifest

_AGAIN = "run its suite again: it measures what is missing"
_DATA = {"split_evaluation": "evaluation images", "victim": "victim's weights", "task": "task or its version"}


def rescore(store: RunFolder, device: torch.device, *, although_changed: bool = False) -> int:
    """Scores all finished cells with the metrics as they are now; returns how many. What probes answered stays.

    Originals and reconstructions are the run's own; the task is loaded for its victim (re-identification,
    label agreement) and its groups. No attack and no defense runs.

    Args:
        store: The run, in which nothing else may be at work.
        device: Where to compute.
        although_changed: Scores although data, weights or code are not those of the run; run.json keeps what differed.

    Raises:
        DataError: They are not those of the run.
        StoreError: The folder is in use, or cannot be read or written.
    """
    with exclusive(store.path):
        store.sweep()
        manifest = store.manifest()
        suite = suite_of(store)
        context = RunContext.build(suite, device)
        count, (_, height, width) = manifest["task"]["evaluation_images"], manifest["task"]["image_shape"]
        originals = _pictures(store, ORIGINALS, count, height, width)
        code = scoring_code(suite)
        differs = _differences(manifest, context, originals, code)
        if differs and not although_changed:
            raise DataError(
                f"not what the run was scored with: {'; '.join(differs)}",
                where=str(store.path),
                hint="restore it, or score with --although-changed, which is kept in run.json",
            )
        judging = JudgedGallery.of(suite, context.victim, originals, device)
        gallery = context.features(originals)
        done, parts, pictured = store.done(), [], [ORIGINALS]
        cells = [key for key in manifest["cells"] if key in done]
        _check_there(store, manifest, cells)
        for key in cells:
            part = store.read_part(key)
            if isinstance(part, RebuiltRecord):
                rebuilt = _pictures(store, key, count, height, width)
                pictured.append(key)
                scores = score_reconstructions(context, originals, rebuilt, gallery, judging)
                found = {name: values.tolist() for name, values in scores.values.items()}
                # What is then resumed is measured again: nothing made by two versions stands side by side.
                digest = content_hash([part.head.code, code]) if differs else part.head.code
                part = part.rescored(found, scores.reasons, digest)
                store.write_part(part)
            parts.append(part)
        tables = Assembler(context.evaluation, suite.baseline_point, suite.seeds[0]).tables(parts)
        manifest["metrics"] = described(metrics_of(suite))
        store.write_manifest(manifest)
        store.write_tables(tables.cells, tables.images, tables.kinds)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        manifest["judge"] = dict(judging.described())
        again: dict[str, Json] = {"at": when, "differs": [*differs], "code": {**code}}
        manifest["scored_again"] = [*manifest.get("scored_again", []), again]
        store.write_manifest(manifest)
        left = [key for key in cells if store.stamp(key)] + [key for key in pictured if store.images_stamp(key)]
        if len(left) < len(cells) + len(pictured):
            raise StoreError("parts of it were taken away while it was scored", where=str(store.path), hint=_AGAIN)
        return len(parts)


def _check_there(store: RunFolder, manifest: RunManifest, cells: list[str]) -> None:
    """Checks that there is something to score, and all of it where the run was complete.

    Raises:
        StoreError: Cells are missing.
    """
    planned = manifest["cells"]
    if not cells or (manifest.get("status") == "complete" and len(cells) < len(planned)):
        what = f"of {len(planned)} cells {len(planned) - len(cells)} are missing"
        raise StoreError(what, where=str(store.path), hint=_AGAIN)


def _pictures(store: RunFolder, key: str, count: int, height: int, width: int) -> torch.Tensor:
    """Returns stored images (N, 3, H, W), laid out as a run lays them out: kernels choose their last digits by that."""
    return torch.from_numpy(store.read_images(key, count, height, width)).permute(0, 3, 1, 2).contiguous()


def _differences(manifest: RunManifest, context: RunContext, originals: torch.Tensor, code: Code) -> list[str]:
    """Says what is not as it was when the run was measured."""
    then, now = manifest.get("data") or {}, data_of(context)
    found = [
        f"another {_DATA.get(name, name.replace('_', ' '))}: {then.get(name)}, now {now[name]}"
        for name in now
        if then.get(name) != now[name]
    ]
    pixels = context.evaluation.pixels
    if originals.shape != pixels.shape or not torch.equal(originals, pixels):
        found.append("the evaluation images are not the originals that the run keeps")
    for was in (manifest.get("code") or {}).values():
        # Of what measured the run only what scores is compared: attacks and defenses do not run.
        changed = differences({name: was[name] for name in code if name in was}, code)
        if changed:
            found.append(f"other code: {changed}")
            break
    return found
