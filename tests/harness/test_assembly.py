import math

import numpy as np
import pytest
import torch

from leakgauge.harness.scoring.statistics import bootstrap_streams, mean_interval
from leakgauge.harness.store.assembly import Assembler, _ratio
from leakgauge.harness.values.images import ImageSet
from tests.harness.made_records import record

N = 6
IMAGES = ImageSet(torch.zeros(N, 3, 2, 2, dtype=torch.uint8), tuple("abcdef"), None, torch.tensor([0, 0, 1, 1, 2, 2]))


def part(point, attack, psnr, *, floor=False, plateau=None, status="done"):
    identity = {"cell": f"{point}-{attack}", "operating_point": point, "channel": "ideal", "attack": attack}
    identity |= {"threat_model": "server", "seed": 0}
    costs = {"quality": [1.0] * N, "quality_base": [1.0] * N, "payload_bytes": [10] * N}
    data = {"identity": identity, "costs": costs, "latency_ms": 1.0, "status": status, "floor": floor}
    scores = {"psnr_db": psnr, "ssim": [0.5] * N} if status == "done" else {}
    return {**data, "unconverged": plateau, "scores": scores, "reason": "it broke" if status == "failed" else ""}


def tables_of(parts):
    return Assembler(IMAGES, "undefended", 0).tables([record(one) for one in parts])


def rows(parts):
    cells = tables_of(parts).cells
    return {row["cell"]: row for row in cells}


FLOORS = [part("undefended", "floor_a", [10.0] * N, floor=True), part("m", "floor_a", [10.0] * N, floor=True)]


def test_leakage_is_above_the_floor_that_is_best_on_average():
    other = part("undefended", "floor_b", [8.0, 15, 8, 15, 8, 15], floor=True)
    found = rows([*FLOORS, other, part("undefended", "x", [20.0] * N)])
    assert found["undefended-x"]["leakage"] == 20 - (8 + 15) / 2
    assert found["undefended-floor_b"]["leakage"] == 0
    assert found["undefended-floor_a"]["leakage"] == -1.5
    assert found["undefended-x"]["verdict"] == "conclusive"


def test_what_guesses_reach_stands_by_image_and_is_no_metric_of_the_run_s_own():
    blind = part("undefended", "x", [20.0] * N)
    blind["scores"]["permuted_psnr_db"] = [9.0, 8, 9, 8, 9, 8]
    tables = tables_of([*FLOORS, blind])
    assert [row["permuted_psnr_db"] for row in tables.images[-N:]] == [9.0, 8, 9, 8, 9, 8]
    assert "permuted_psnr_db" not in tables.cells[-1]


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


BLIND = "tokens were merged, and this attack cannot find positions"


def test_a_converged_attacker_that_cannot_find_positions_gives_a_lower_bound():
    strong = part("undefended", "x", [19.0] * N)
    blind = {**part("m", "x", [14.0] * N), "lower_bound": BLIND}
    found = rows([*FLOORS, strong, blind])
    assert found["undefended-x"]["verdict"] == "conclusive"
    assert (found["m-x"]["verdict"], found["m-x"]["reason"]) == ("lower bound", BLIND)
    cut = rows([*FLOORS, strong, {**blind, "unconverged": "still gaining"}])["m-x"]
    assert cut["verdict"] == "inconclusive", "not converged weighs more"


def test_a_better_setting_of_the_same_plug_in_is_warned_of_beside_a_conclusive_cell():
    def of(label, psnr, plugin="p", point="m"):
        return {**part(point, label, [psnr] * N), "plugin": plugin}

    proofs = [of(label, 20.0, point="undefended") for label in ("few", "many", "other")]
    found = rows([*FLOORS, *proofs, of("few", 15.0), of("many", 15.5), of("other", 19.0, plugin="q")])
    assert "many, the same plug-in with other settings, rebuilds +0.50 dB" in found["m-few"]["warning"]
    assert found["m-few"]["verdict"] == "conclusive"
    assert found["m-many"]["warning"] == found["m-other"]["warning"] == ""
    near = rows([*FLOORS, *proofs, of("few", 15.0), of("many", 15.2)])
    assert near["m-few"]["warning"] == ""


def test_unscored_metrics_stay_unscored():
    found = rows(FLOORS)["m-floor_a"]
    assert math.isnan(found["lpips"])
    assert math.isnan(found["lpips_lo"])
    assert found["ssim"] == 0.5


def probe(point, attack, correct, *, chance=0.5, area=(0.5, 0.4, 0.6), proves=True, plateau=None):
    made = part(point, attack, [], plateau=plateau)
    made |= {"kind": "attribute", "attribute": "mood", "proves_on_baseline": proves}
    made["scores"] = {"attribute_correct": correct}
    made["cell_scores"] = dict(zip(("attribute_auc", "attribute_auc_lo", "attribute_auc_hi"), area, strict=True))
    made["cell_scores"]["attribute_chance"] = chance
    return {**made, "chance": {"attribute_accuracy": chance, "attribute_auc": 0.5}}


def seeker(point, attack, found):
    made = part(point, attack, [])
    made["scores"] = {"reid_top1": found}
    return {**made, "kind": "identity", "proves_on_baseline": True, "chance": {"reid_top1": 1 / N}}


def test_a_probe_proves_itself_by_accuracy_or_area_on_the_undefended_payload():
    deaf = [probe("undefended", "x", [1.0, 0] * 3), probe("m", "x", [1.0] * N)]
    found = rows([*FLOORS, *deaf])
    for cell in ("undefended-x", "m-x"):
        assert found[cell]["verdict"] == "inconclusive"
        assert (
            found[cell]["reason"]
            == "does not beat chance on the undefended payload, so a low score here proves nothing"
        )
    hears = [probe("undefended", "x", [1.0] * N), probe("m", "x", [0.0] * N)]
    assert rows(hears)["m-x"]["verdict"] == "conclusive", "no floor is needed"
    ranks = [probe("undefended", "x", [1.0, 0] * 3, area=(0.8, 0.7, 0.9)), probe("m", "x", [0.0] * N)]
    assert rows(ranks)["m-x"]["verdict"] == "conclusive"
    # By chance alone the answer would be right as often.
    lopsided = [probe("undefended", "x", [1.0] * N, chance=1.0), probe("m", "x", [0.0] * N)]
    assert rows(lopsided)["m-x"]["verdict"] == "inconclusive"


def test_an_excused_probe_need_not_prove_itself_but_converge():
    assert rows([probe("m", "x", [0.0] * N, proves=False)])["m-x"]["verdict"] == "conclusive"
    late = rows([probe("m", "x", [0.0] * N, proves=False, plateau="still gaining")])["m-x"]
    assert late["reason"] == "convergence not shown: still gaining"


def test_an_identity_probe_must_beat_one_in_the_gallery():
    assert rows([seeker("undefended", "x", [0.0] * N)])["undefended-x"]["verdict"] == "inconclusive"
    assert rows([seeker("undefended", "x", [1.0] * N)])["undefended-x"]["verdict"] == "conclusive"


def test_a_probe_s_row_holds_its_scores_and_no_others():
    tables = tables_of([*FLOORS, probe("undefended", "x", [1.0, 1, 1, 1, 0, 0])])
    row = tables.cells[-1]
    assert row["attribute"] == "mood"
    assert row["attribute_accuracy"] == 4 / 6
    assert row["attribute_accuracy_lo"] < 4 / 6 < row["attribute_accuracy_hi"]
    assert (row["attribute_chance"], row["attribute_auc"], row["attribute_auc_hi"]) == (0.5, 0.5, 0.6)
    assert all(math.isnan(row[name]) for name in ("psnr_db", "leakage", "reid_top1", "label_agreement"))
    assert [image["attribute_correct"] for image in tables.images[-N:]] == [1, 1, 1, 1, 0, 0]
    assert tables.cells[0]["attribute"] == ""
    assert all(math.isnan(image["attribute_correct"]) for image in tables.images[:N])


def test_quality_by_kind_counts_every_question_alike():
    rng = np.random.default_rng(0)
    asked = rng.integers(1, 20, 60).astype(np.float64)
    right = rng.binomial(asked.astype(int), 0.6).astype(np.float64)
    values = _ratio(right, asked)
    assert values.mean() == pytest.approx(right.sum() / asked.sum())
    draws = rng.integers(0, 60, (4000, 60))
    spread = (right[draws].sum(axis=1) / asked[draws].sum(axis=1)).std()
    assert values.std(ddof=1) / np.sqrt(60) == pytest.approx(spread, rel=0.1)


def test_intervals_resample_clusters_of_images():
    values = [20.0, 20.1, 14.0, 14.1, 26.0, 26.1]
    found = rows([*FLOORS, part("undefended", "x", values)])["undefended-x"]
    for name, own in (("psnr_db", np.array(values)), ("leakage", np.array(values) - 10)):
        clustered = mean_interval(own, IMAGES.groups, bootstrap_streams(0))
        assert (found[name], found[f"{name}_lo"], found[f"{name}_hi"]) == pytest.approx(clustered[:3])
    assert clustered.lo < mean_interval(own, None, bootstrap_streams(0)).lo - 0.5


def elsewhere(made, **names):
    return {**made, "identity": {**made["identity"], **names, "cell": "-".join(map(str, names.values()))}}


@pytest.mark.parametrize("names", [{"channel": "air"}, {"threat_model": "spy"}, {"seed": 1}, {"operating_point": "m"}])
def test_leakage_is_above_the_floor_of_the_same_exposure(names):
    here, there = part("undefended", "x", [20.0] * N), elsewhere(part("undefended", "x", [20.0] * N), **names)
    floor = elsewhere(part("undefended", "floor", [4.0] * N, floor=True), **names)
    floor["identity"]["cell"] = "floor"
    found = rows([FLOORS[0], here, there, floor])
    assert found["undefended-x"]["leakage"] == 10
    assert found[there["identity"]["cell"]]["leakage"] == 16


@pytest.mark.parametrize("names", [{"threat_model": "spy"}, {"seed": 1}, {"attack": "y"}])
def test_an_attacker_proves_itself_not_another(names):
    proof = part("undefended", "x", [19.0] * N)
    floors = [*FLOORS, *(elsewhere(floor, **names) for floor in FLOORS)]
    stranger = elsewhere(part("m", "x", [11.0] * N), **names)
    found = rows([*floors, proof, part("m", "x", [11.0] * N), stranger])
    assert found["m-x"]["verdict"] == "conclusive"
    assert found[stranger["identity"]["cell"]]["verdict"] == "inconclusive"


def test_success_on_another_operating_point_proves_nothing():
    found = rows([*FLOORS, part("undefended", "x", [9.0] * N), part("m", "x", [19.0] * N)])
    assert found["m-x"]["verdict"] == "inconclusive"


def test_a_mean_above_the_floors_that_chance_may_explain_is_no_proof():
    values = [30.0, 30.0, 5.0, 5.0, 5.0, 5.0]
    found = rows([*FLOORS, part("undefended", "x", values), part("m", "x", [11.0] * N)])
    assert found["undefended-x"]["leakage"] > 0 > found["undefended-x"]["leakage_lo"]
    assert found["m-x"]["verdict"] == "inconclusive"
