"""A small search space of the photos task, and how to run it."""

from __future__ import annotations

from pathlib import Path

import torch

from leakgauge.harness.search.space import Space, parse_space
from leakgauge.harness.search.study import Prepared, prepare_search, run_search
from leakgauge.harness.search.trials.memo import Memo
from leakgauge.harness.search.trials.trials import finished

CPU = torch.device("cpu")
MEMO = Memo()


def small(**changes) -> Space:
    """Two blocks of the photos victim, few images."""
    data = {
        "name": "small",
        "task": "photos",
        "defense": {"name": "split_pipeline", "cut": 2, "codec": "float16"},
        "calibration": {"images": 8},
        "search_images": 16,
        "objectives": ["quality", "gflops_total", "payload_bytes"],
        "reference": {"quality": 0.1},
        "sampler": "random",
        "trials": 4,
        "warm_start": 2,
    }
    return parse_space({**data, **changes})


def prepared(**changes) -> Prepared:
    return prepare_search(small(**changes), CPU, MEMO)


def searched(out: Path, **changes):
    ready = prepared(**changes)
    return ready, finished(run_search(ready, out, CPU, 1, None, lambda done, total: None))
