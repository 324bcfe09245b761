"""Records of cells that no run measured, from what their parts would hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from leakgauge.harness.store.cell_record import CellRecord, record_of
from leakgauge.harness.values.stored_shapes import StoredPart

NAMES = ("task", "defense", "operating_point", "channel", "attack", "threat_model")
KEY = "0" * 16
SHARED: dict[str, Any] = {"status": "done", "costs": {}, "latency_ms": 1.0, "scores": {}, "floor": False}


def record(part: dict[str, Any]) -> CellRecord:
    """Returns the record of a part, of which only what matters to a test need be stated; its key may be any text."""
    identity = {**dict.fromkeys(NAMES, "x"), "snr_db": None, "seed": 0, **part.get("identity", {})}
    whole = {**SHARED, **part, "identity": {**identity, "cell": KEY}}
    made = record_of(StoredPart.model_validate(whole))
    named = replace(made.identity, cell=identity.get("cell", KEY))
    return replace(made, head=replace(made.head, identity=named))
