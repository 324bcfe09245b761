"""Options of the reductions that are refused, and where they act."""

import pytest

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.suite.registry import create


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *(
            ("threshold", {"thresholds": bad}, "thresholds")
            for bad in (1.5, -1.01, float("nan"), True, "0.9", [0.9, 2.0])
        ),
        ("threshold", {"thresholds": 0.9, "cap": 0.6}, "cap = 0.6"),
        (
            "threshold",
            {"thresholds": 0.9, "split": "alternate"},
            "split = 'alternate' is not one of alternating, all_pairs.*mean 'alternating'",
        ),
        ("threshold", {"thresholds": 0.9, "split": "all_pairs", "order": "tome"}, "alternating split only"),
        ("proportion", {"proportions": 1.1}, "proportions"),
        ("tome", {"r": 1.5}, "r = 1.5 is not a whole number"),
        *(("top_k", {"keep": bad}, "keep") for bad in (0, 0.0, 1.01, "all", True, [0.5, 0.0], [])),
        *(("evit", {"layers": bad}, "layers") for bad in ([], 3, [3, -1], [1.0], "369", [True])),
        ("top_k", {"keep": [0.7, 0.7], "layers": [1]}, "already says where"),
        ("top_k", {}, "'keep' is missing"),
        ("evit", {"keeps": 0.7}, "unknown option 'keeps'"),
        ("pitome", {"ratio": 0}, "ratio"),
        *(("pitome", {"ratio": 0.9, "margin": bad}, "margin") for bad in (1.5, True, "0.9", float("nan"))),
        ("pitome", {"ratio": 0.9, "matched_blocks": -1}, "matched_blocks = -1"),
        ("tofu", {"r": -1}, "r = -1"),
        ("tofu", {"r": 2, "prune_layers": -1}, "prune_layers = -1"),
        ("tofu", {"r": 2, "prune_layers": 1.5}, "prune_layers = 1.5"),
        ("diffrate", {}, "neither prune_kept nor merge_kept"),
        ("diffrate", {"prune_kept": 0}, "prune_kept = 0"),
        ("diffrate", {"merge_kept": [4, 2.5]}, r"merge_kept\[1\] = 2.5"),
        ("diffrate", {"merge_kept": 4, "similarity": "token"}, "similarity = 'token' is not one of"),
        ("diffrate", {"merge_kept": 4, "sizes": "scale"}, "sizes = 'scale' is not one of"),
        ("ats", {"tokens": 0}, "tokens = 0"),
        ("ats", {"tokens": 4, "rule": "author"}, "rule = 'author' is not one of"),
        ("ats", {"tokens": 4, "layers": [-1]}, "layers"),
        ("prumerge", {"layer": -1}, "layer = -1"),
        ("prumerge", {"layer": True}, "layer = True"),
        ("prumerge", {"plus": 1}, "plus = 1"),
    ],
)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        create("reductions", name, options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("threshold", {"thresholds": [0.9, 0.8]}, "2 thresholds for 3 edge blocks"),
        ("top_k", {"keep": [0.9, 0.8]}, "2 keep for 3 edge blocks"),
        ("top_k", {"keep": 0.5}, "first acts in block 3, but the edge has 3 blocks"),
        ("top_k", {"keep": 0.5, "layers": [3, 0]}, "names block 3, but the edge has 3"),
        ("evit", {"layers": [7]}, "names block 7"),
        ("pitome", {"ratio": [0.9]}, "1 ratio for 3 edge blocks"),
        ("tofu", {"r": [1, 2]}, "2 r for 3 edge blocks"),
        ("diffrate", {"prune_kept": [9, 8]}, "2 prune_kept for 3"),
        ("diffrate", {"prune_kept": 9, "merge_kept": [9, 8]}, "2 merge_kept for 3"),
        ("ats", {"tokens": 5}, "first acts in block 3"),
        ("ats", {"tokens": [5, 4], "layers": [1]}, "2 tokens for 3"),
        ("prumerge", {"layer": 3}, "layer = 3, but the edge has 3"),
        ("random_drop", {"match": {"name": "top_k", "keep": 0.5}}, "first acts in block 3"),
    ],
)
def test_options_that_do_not_fit_the_edge_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        create("reductions", name, options).check(3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("top_k", {"keep": 0.5, "layers": [2]}),
        ("top_k", {"keep": [1, 1, 0.5]}),
        ("evit", {"layers": [0, 2]}),
        ("ats", {"tokens": 5, "layers": [0]}),
        ("prumerge", {}),
        ("prumerge", {"layer": 2}),
        ("diffrate", {"merge_kept": [9, 8, 7]}),
    ],
)
def test_options_that_fit_the_edge_pass(name, options):
    create("reductions", name, options).check(3)


@pytest.mark.parametrize("blocks", [4, 7, 12])
def test_defaults_act_in_the_blocks_that_exist(blocks):
    create("reductions", "evit", {}).check(blocks)
    create("reductions", "ats", {"tokens": 3}).check(blocks)
