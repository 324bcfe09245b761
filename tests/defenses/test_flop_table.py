"""FLOPs added up by token count equal those that the counter measures image by image."""

from __future__ import annotations

import pytest
import torch

from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.harness.measurement.transmitting import transmit_all
from leakgauge.harness.scoring.compute import measure_flops
from leakgauge.harness.values.seeding import Streams

CPU = torch.device("cpu")
THRESHOLD = {"name": "threshold", "thresholds": [0.97, 0.9, 1.0, 0.8]}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduction": "none"},
        {"cut": 6, "reduction": {"name": "threshold", "thresholds": 0.9}},
        {"codec": {"name": "pca", "rank": 8}},
        {"send_sizes": False},
        {"precision": "bfloat16", "codec": {"name": "pca", "rank": 8}},
        {"proportional_attention": False},
        {"reduction": {**THRESHOLD, "split": "all_pairs", "similarity": "tokens"}},
        {"reduction": {"name": "tome", "r": [3, 0, 5, 1]}},
        {"channel": {"name": "awgn", "snr_db": 3}},
    ],
)
def test_the_table_equals_the_counter(victim, photographs, options):
    root = SplitPipeline(victim, CPU, cut=4, reduction=THRESHOLD)
    images, streams = photographs.select(range(6)), Streams(0, ("t",))
    # Another pipeline has filled the table before, as in a search.
    root.flops(images, root.transmit(images, streams))
    defense = root.tuned(**options)
    defense.prepare(photographs, streams)
    sent = defense.send(transmit_all(defense, images, streams, 4), streams.child("channel"))
    counted, measured = defense.flops(images, sent), measure_flops(defense, images, sent, streams)
    assert torch.equal(counted.edge, measured.edge)
    assert torch.equal(counted.total, measured.total)


@pytest.mark.parametrize(
    "options",
    [
        {"reduction": {"name": "random_merge", "match": THRESHOLD}},
        {"reduction": {"name": "evit", "keep": 0.5}},
        {"perturb": [{"name": "token_dropout", "p": 0.5}]},
    ],
)
def test_where_counts_do_not_decide_it_does_not_say(victim, photographs, options):
    images, streams = photographs.select(range(2)), Streams(0)
    defense = SplitPipeline(victim, CPU, cut=4).tuned(**options)
    assert defense.flops(images, defense.transmit(images, streams)) is None


def test_siblings_share_embeddings_but_one_image_alone_is_always_embedded(victim, photographs, monkeypatch):
    root = SplitPipeline(victim, CPU, cut=2)
    first, second = root.tuned(), root.tuned(codec="float16")
    calls = []
    backbone = first._split.backbone
    embed = type(backbone).embed
    monkeypatch.setattr(type(backbone), "embed", lambda self, images: calls.append(len(images)) or embed(self, images))
    images = photographs.select(range(4))
    for defense in (first, second):
        defense.encode(images, Streams(0))
    assert calls == [4]
    for defense in (first, second):
        defense.encode(images.select([0]), Streams(0))
    assert calls == [4, 1, 1]
