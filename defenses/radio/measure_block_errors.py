"""Block error rates over AWGN of the bit-true chain: ``python -m leakgauge.defenses.radio.measure_block_errors``.

Every point is addressed by scheme, SNR and batch, so an interrupted measurement goes on where it stopped and gives the
same table.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from leakgauge.defenses.radio.fading import complex_normal, noise_power
from leakgauge.defenses.radio.ldpc import DECODER_ITERATIONS, block_code
from leakgauge.defenses.radio.schemes import INFORMATION_BITS, SCHEMES, Mcs
from leakgauge.harness.values.seeding import Streams

STEP_DB = 0.25
_BATCH = 100
_ALL_LOST = 0.99


def first_snr_db(mcs: Mcs) -> float:
    """Returns the grid point below which no code can work: the Shannon limit at the scheme's efficiency."""
    return math.floor(10 * math.log10(2**mcs.efficiency - 1) / STEP_DB) * STEP_DB


def measure_point(mcs: Mcs, snr_db: float, blocks: int, errors: int, seed: int, device: str = "cpu") -> dict[str, Any]:
    """Sends random blocks until there are enough errors or blocks.

    Args:
        mcs: The scheme.
        snr_db: Es/N0 in dB.
        blocks: Blocks after which to stop.
        errors: Wrong blocks after which to stop.
        seed: Names the draws together with scheme, SNR and batch.
        device: Where to compute.

    Returns:
        The point: snr_db, blocks, errors.
    """
    code, n0 = block_code(mcs, device), noise_power(snr_db)
    root = Streams(seed, ("block_errors", mcs.name, f"{snr_db:.2f}"))
    sent = wrong = 0
    while sent < blocks and wrong < errors:
        stream = root.child(sent)
        count = min(_BATCH, blocks - sent)
        bits = torch.randint(0, 2, (count, INFORMATION_BITS), generator=stream.child("bits").torch())
        noise = complex_normal((count, mcs.block_symbols), stream.child("noise")).to(device)
        received = code.encode(bits) + math.sqrt(n0) * noise
        decoded = code.decode(received, torch.full((count, 1), n0, device=device))
        wrong += int((decoded != bits).any(dim=1).sum())
        sent += count
    return {"snr_db": snr_db, "blocks": sent, "errors": wrong}


def _measure_curve(points: list[dict[str, Any]], mcs: Mcs, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Adds points upwards from the Shannon limit until one has no error; yields after each."""
    while not points or points[-1]["errors"]:
        snr_db = points[-1]["snr_db"] + STEP_DB if points else first_snr_db(mcs)
        points.append(measure_point(mcs, snr_db, options.blocks, options.errors, options.seed, options.device))
        # Of the points at which everything is lost, only the last is kept.
        while len(points) > 1 and points[1]["errors"] >= _ALL_LOST * points[1]["blocks"]:
            del points[0]
        yield points[-1]


def main(arguments: list[str] | None = None) -> None:
    """Runs the measurement and writes the table after every point."""
    parser = argparse.ArgumentParser(description="Measure block error rates of every scheme over AWGN.")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; an unfinished one is continued")
    parser.add_argument("--blocks", type=int, default=2000, help="blocks a point at most")
    parser.add_argument("--errors", type=int, default=400, help="wrong blocks after which a point is done")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    settings = {
        "sionna": version("sionna-no-rt"),
        "torch": version("torch"),
        "decoder": f"flooding belief propagation, box-plus, {DECODER_ITERATIONS} iterations, float32, {options.device}",
        "demapper": "app",
        "information_bits": INFORMATION_BITS,
        "blocks_per_point": options.blocks,
        "errors_per_point": options.errors,
        "seed": options.seed,
        "channel": "AWGN, Es/N0 per complex symbol",
        "command": "python -m leakgauge.defenses.radio.measure_block_errors",
    }
    table: dict[str, Any] = {"provenance": {"date": str(date.today()), **settings}, "curves": {}}
    if options.out.exists():
        found = json.loads(options.out.read_text(encoding="utf-8"))
        if {k: v for k, v in found["provenance"].items() if k != "date"} != settings:
            sys.exit(f"{options.out} was measured with other settings -- give another --out")
        table = found
    for mcs in SCHEMES:
        points = table["curves"].setdefault(mcs.name, [])
        start = time.monotonic()
        for point in _measure_curve(points, mcs, options):
            text = json.dumps(table, indent=1)
            # Whole or not at all: an interrupted write would leave nothing to go on from.
            part = options.out.with_suffix(".part")
            part.write_text(text + "\n", encoding="utf-8")
            part.replace(options.out)
            seconds = time.monotonic() - start
            print(
                f"{mcs.name} {point['snr_db']:6.2f} dB {point['errors']}/{point['blocks']} {seconds:.0f} s", flush=True
            )


if __name__ == "__main__":
    main()
