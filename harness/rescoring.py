"""Scores the stored reconstructions of a run again, without running anything else."""

from __future__ import annotations

import torch

from harness.assembly import Assembler
from harness.attempt import score_reconstructions
from harness.bench import Bench
from harness.judging import JudgedGallery
from harness.runner import suite_of
from harness.store import RunFolder


def rescore(store: RunFolder, device: torch.device) -> int:
    """Scores all finished cells with the metrics as they are now; returns how many. What probes answered stays.

    Originals and reconstructions are the run's own; the task is loaded for its victim (re-identification,
    label agreement) and its groups. No attack and no defense runs.
    """
    manifest = store.manifest()
    suite = suite_of(store)
    bench = Bench.build(suite, device)
    count, (_, height, width) = manifest["task"]["evaluation_images"], manifest["task"]["image_shape"]
    originals = torch.from_numpy(store.read_images("originals", count, height, width)).permute(0, 3, 1, 2)
    judging = JudgedGallery.of(suite, bench.victim, originals, device)
    gallery = bench.features(originals)
    done, parts = store.done(), []
    for key in (key for key in manifest["cells"] if key in done):
        part = store.read_part(key)
        if part["status"] == "done" and part.get("kind", "reconstruction") == "reconstruction":
            rebuilt = torch.from_numpy(store.read_images(key, count, height, width)).permute(0, 3, 1, 2)
            scores = score_reconstructions(bench, originals, rebuilt, gallery, judging)
            part["scores"] = {name: values.tolist() for name, values in scores.values.items()}
            part["unscored"] = scores.reasons
            store.write_part(key, part)
        parts.append(part)
    assembler = Assembler(bench.evaluation, suite.baseline_point, suite.seeds[0])
    tables = assembler.tables(parts)
    store.write_tables(tables.cells, tables.images, tables.kinds)
    store.write_manifest({**manifest, "judge": dict(judging.described())})
    return len(parts)
