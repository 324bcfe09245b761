import math

import torch

from harness.assembly import Assembler
from harness.images import ImageSet

N = 6
IMAGES = ImageSet(torch.zeros(N, 3, 2, 2, dtype=torch.uint8), tuple("abcdef"), None, torch.tensor([0, 0, 1, 1, 2, 2]))


def part(point, attack, psnr, *, floor=False, plateau=None, status="done"):
    identity = {"cell": f"{point}-{attack}", "operating_point": point, "channel": "ideal", "attack": attack}
    identity |= {"threat_model": "server", "seed": 0}
    costs = {"quality": [1.0] * N, "quality_base": [1.0] * N, "payload_bytes": [10] * N}
    data = {"identity": identity, "costs": costs, "latency_ms": 1.0, "status": status, "floor": floor}
    scores = {"psnr_db": psnr, "ssim": [0.5] * N} if status == "done" else {}
    return {**data, "unconverged": plateau, "scores": scores, "reason": "it broke" if status == "failed" else ""}


def rows(parts):
    cells = Assembler(IMAGES, "undefended", 0).tables(parts).cells
    return {row["cell"]: row for row in cells}


FLOORS = [part("undefended", "floor_a", [10.0] * N, floor=True), part("m", "floor_a", [10.0] * N, floor=True)]


def test_leakage_is_above_the_best_floor_of_each_image():
    other = part("undefended", "floor_b", [8.0, 12, 8, 8, 8, 8], floor=True)
    found = rows([*FLOORS, other, part("undefended", "x", [20.0] * N)])
    assert found["undefended-x"]["leakage"] == (10 * 5 + 8) / 6
    assert found["undefended-x"]["verdict"] == "conclusive"


def test_an_attacker_that_fails_on_the_undefended_payload_proves_nothing():
    weak = [part("undefended", "x", [9.0] * N), part("m", "x", [9.0] * N)]
    found = rows([*FLOORS, *weak])
    assert found["m-x"]["verdict"] == "inconclusive"
    assert "proves nothing" in found["m-x"]["reason"]
    strong = [part("undefended", "x", [19.0] * N), part("m", "x", [9.0] * N)]
    assert rows([*FLOORS, *strong])["m-x"]["verdict"] == "conclusive"


def test_no_plateau_no_floor_and_failure_are_inconclusive():
    found = rows([*FLOORS, part("undefended", "x", [20.0] * N, plateau="still gaining: +1 dB")])
    assert "convergence not shown" in found["undefended-x"]["reason"]
    assert "no floor" in rows([part("undefended", "x", [20.0] * N)])["undefended-x"]["reason"]
    failed = rows([*FLOORS, part("m", "x", [], status="failed")])["m-x"]
    assert failed["verdict"] == "inconclusive"
    assert failed["reason"] == "it broke"
    assert math.isnan(failed["psnr_db"])
    assert failed["n"] == 0


def test_unscored_metrics_stay_unscored():
    found = rows(FLOORS)["m-floor_a"]
    assert math.isnan(found["lpips"])
    assert math.isnan(found["lpips_lo"])
    assert found["ssim"] == 0.5
