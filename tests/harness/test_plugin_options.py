"""Every option of every registered plug-in: wrong types and values out of bounds are refused before anything loads."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from pydantic import Field

from leakgauge.attacks.set_decoder import SetDecoder
from leakgauge.harness.contracts.attack import Attack
from leakgauge.harness.errors import ConfigError, LeakgaugeError
from leakgauge.harness.run.plan import prepare
from leakgauge.harness.run.suite_options import SUPPLIED, check_suite
from leakgauge.harness.search.space import parse_space
from leakgauge.harness.search.space_options import check_space
from leakgauge.harness.suite.options import Option, check_options, signature_of
from leakgauge.harness.suite.registry import check, load, plugins
from leakgauge.harness.suite.schema import parse_suite

NAN, INF = math.nan, math.inf
COUNT = (0, -1, True, "3", 1.5, None, [1])
NOT_NEGATIVE = (-1, True, "3", 0.5)
POSITIVE = (0, -1.0, NAN, INF, "x", True, [0.1])
WEIGHT = (-0.1, NAN, INF, -INF, "1", True)
SHARE = (-0.1, 1.1, NAN, "0.5", True)
KEPT = (0, -0.1, 1.1, NAN, "0.5", True)
SWITCH = (1, 0, "true", "yes", None)
TEXT = (3, True, None, ["a"])
NAME = ("nonsense", "", 3, True)
WIDTHS = ((), [0], [16, -1], [True], ["8"], 16, "16")
DECIBEL = (NAN, INF, 1e6, "10", True)
BITS = (1, 9, True, "4", 4.0)
PLUGIN = ("nonsense", 3, {}, {"name": 3}, {"name": "nonsense"}, None)
CHANNELS = ([0.5, 0.5], ["a", 0.5, 0.5], [NAN, 0.5, 0.5], [True, 0.5, 0.5], 0.5)
COLOUR = ([1, 2], [1, 2, 256], [True, 0, 0], 3, None)
SPLITS = ({"attacker": 0}, {"attacker": True}, {"attacker": "9"}, {"nonsense": 3}, [3], 3)


def per_block(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same for one value and within a list, which must not be empty."""
    return (*(v for v in values if not isinstance(v, list)), *([v] for v in values if not isinstance(v, list)), [])


NETWORK = {"steps": COUNT, "batch_size": COUNT, "width": (*COUNT, 10), "layers": COUNT, "heads": COUNT}
NETWORK |= {"peak_lr": POSITIVE, "muon": WEIGHT, "double_check": SWITCH}
DESCENT = {"distance": NAME, "learning_rate": POSITIVE, "place_weight": WEIGHT, "batch_size": COUNT}
MERGING = {"similarity": NAME, "split": NAME, "order": NAME, "cap": (0, 0.6, -1, NAN, True, "x")}
LAYERS = ([], [-1], [True], ["3"], 3, [1.5])
COSINE = per_block((-1.1, 1.1, NAN, True, "0.9"))
PIPELINE: dict[str, tuple[Any, ...]] = {
    "channel": PLUGIN,
    "cut": (*COUNT[:-2], 1000),
    "reduction": PLUGIN,
    "codec": PLUGIN,
    "proportional_attention": (1, "yes"),
    "send_sizes": (1, "yes"),
    "precision": NAME,
    "perturb": ("gaussian", ["nonsense"], [{"name": "gaussian", "strength": -1}], [3], {"name": "shuffle"}),
    "packet_tokens": COUNT,
    "on_loss": NAME,
}
FED: dict[str, tuple[Any, ...]] = {"mean": CHANNELS, "std": CHANNELS, "interpolation": NAME, "crop_share": KEPT}
ASKING: dict[str, tuple[Any, ...]] = {
    **FED,
    "path": TEXT,
    "model": TEXT,
    "pretrained": SWITCH,
    "dtype": NAME,
    "device_map": (3, True, [0]),
    "prompt": (3, "no image", True),
    "max_new_tokens": COUNT,
    "per_split": SPLITS,
    "questions_per_image": COUNT[:-2],
    "fit": NAME,
    "image_px": COUNT[:-2],
    "skip_missing": SWITCH,
    "background": COLOUR,
}
BAD: dict[str, dict[str, dict[str, tuple[Any, ...]]]] = {
    "attacks": {
        "attribute_probe": {
            "attribute": TEXT,
            "epochs": COUNT,
            "patience": COUNT,
            "width": COUNT,
            "batch_size": COUNT,
            "learning_rate": POSITIVE,
        },
        "cascade": {"stages": COUNT, "gain_db": WEIGHT},
        "cascade_merged": {**NETWORK, "position_weight": WEIGHT, "stages": COUNT, "gain_db": WEIGHT},
        "cascade_pretrained": {
            "steps": COUNT,
            "batch_size": COUNT,
            "peak_lr": POSITIVE,
            "muon": WEIGHT,
            "position_weight": WEIGHT,
            "double_check": SWITCH,
            "stages": COUNT,
            "gain_db": WEIGHT,
        },
        "conv_inverse": {
            "epochs": COUNT,
            "batch_size": COUNT,
            "channels": WIDTHS,
            "learning_rate": POSITIVE,
            "double_check": SWITCH,
        },
        "data_efficiency": {"attack": (*PLUGIN, {"name": "ridge", "penalty": 0}), "n": (*COUNT, 1)},
        "deep_image_prior": {
            **DESCENT,
            "iterations": (*COUNT, 9),
            "restarts": COUNT,
            "total_variation": WEIGHT,
            "widths": WIDTHS,
            "skip": COUNT,
        },
        "diffusion": {
            "training_steps": COUNT,
            "training_batch": COUNT,
            "width": (*COUNT, 12, 4),
            "peak_lr": POSITIVE,
            "sampling_steps": COUNT,
            "guidance": WEIGHT,
            "guiding_steps": COUNT,
            "settling_steps": NOT_NEGATIVE,
            "samples": COUNT,
            "eta": SHARE,
            "distance": NAME,
            "place_weight": WEIGHT,
            "batch_size": COUNT,
        },
        "floor_class_mean": {},
        "floor_mean": {},
        "floor_nearest": {"candidates": COUNT},
        "metadata_only": {"attribute": TEXT, "rounds": COUNT, "leaves": (*COUNT, 1), "learning_rate": POSITIVE},
        "reidentification": {"pooled_weight": WEIGHT, "draws": COUNT},
        "ridge": {"penalty": POSITIVE},
        "rmle": {
            **DESCENT,
            "iterations": (*COUNT, 9),
            "restarts": COUNT,
            "start": NAME,
            "total_variation": WEIGHT,
            "patch_prior": WEIGHT,
            "energy": WEIGHT,
            "clip": POSITIVE,
        },
        "sara": {
            "steps": COUNT,
            "batch_size": COUNT,
            "channels": WIDTHS,
            "peak_lr": POSITIVE,
            "predictor_steps": COUNT,
            "predictor_width": (*COUNT, 10),
            "predictor_layers": COUNT,
            "predictor_lr": POSITIVE,
            "least_kept": KEPT,
            "imputer_steps": COUNT,
            "imputer_width": (*COUNT, 10),
            "imputer_layers": COUNT,
            "imputer_lr": POSITIVE,
            "assignment": NAME,
            "double_check": SWITCH,
        },
        "sara_merged": {**NETWORK, "position_weight": WEIGHT},
        "set_decoder": NETWORK,
        "source_map_oracle": NETWORK,
        "surrogate": {
            "steps": COUNT,
            "batch_size": COUNT,
            "width": (*COUNT, 10),
            "layers": COUNT,
            "peak_lr": POSITIVE,
            "adversarial": WEIGHT,
            "discrepancy": WEIGHT,
        },
        "transfer": {
            "attack": (*PLUGIN, {"name": "data_efficiency", "attack": {"name": "ridge", "penalty": 0}, "n": 9})
        },
    },
    "defenses": {
        "split_pipeline": PIPELINE,
        "vqa_pipeline": {
            **PIPELINE,
            "projector_on_edge": SWITCH,
            "fastv": ({"layer": 0}, {"keep": 1.5}, {"layer": True}, {"nonsense": 1}, 2, "fastv"),
        },
    },
    "reductions": {
        "ats": {"tokens": per_block(COUNT), "rule": NAME, "layers": LAYERS},
        "diffrate": {
            "prune_kept": per_block(COUNT[:-2]),
            "merge_kept": per_block(COUNT[:-2]),
            "similarity": NAME,
            "sizes": NAME,
        },
        "evit": {"keep": per_block(KEPT), "layers": LAYERS},
        "none": {},
        "pitome": {"ratio": per_block(KEPT), "margin": (NAN, INF, "x", True), "matched_blocks": NOT_NEGATIVE},
        "proportion": {"proportions": per_block(SHARE), **MERGING},
        "prumerge": {"layer": NOT_NEGATIVE, "plus": SWITCH},
        "random_drop": {"match": (*PLUGIN, {"name": "threshold", "thresholds": 2}, {"name": "threshold"})},
        "random_merge": {"match": (*PLUGIN, {"name": "tome", "r": -1}, {"name": "tome", "r": 1, "cup": 0.5})},
        "threshold": {"thresholds": COSINE, "share": per_block(SHARE), "keep": KEPT, **MERGING},
        "tofu": {"r": per_block(NOT_NEGATIVE), "prune_layers": NOT_NEGATIVE, **MERGING},
        "tome": {"r": per_block(NOT_NEGATIVE), **MERGING},
        "top_k": {"keep": per_block(KEPT), "layers": LAYERS},
    },
    "perturbations": {
        "gaussian": {"strength": WEIGHT, "protect_prefix": SWITCH},
        "laplace": {"strength": WEIGHT, "protect_prefix": SWITCH},
        "pad_count": {"count": (*COUNT[:-2], 2**20 + 1), "bucket": (*COUNT[:-2], 2**20 + 1)},
        "shuffle": {},
        "token_dropout": {"p": (1, -0.1, NAN, True, "x")},
    },
    "codecs": {
        "bfloat16": {},
        "entropy": {"bits": BITS, "per": NAME},
        "float16": {},
        "float32": {},
        "jscc": {
            "uses_per_token": (*COUNT, 4097),
            "snr_low_db": DECIBEL,
            "snr_high_db": DECIBEL,
            "hidden": (*COUNT, 4097),
            "steps": (*NOT_NEGATIVE, 100_001),
        },
        "pca": {"rank": (*COUNT, 4097), "inner": (1, 9, "float32", True)},
        "uniform": {"bits": BITS, "per": NAME},
    },
    "channels": {
        "awgn": {"snr_db": DECIBEL},
        "digital": {
            "snr_db": DECIBEL,
            "mcs": NAME,
            "target_bler": (0, 1, NAN, True, "x"),
            "kind": NAME,
            "k_db": DECIBEL,
            "pilots": COUNT[:-2],
            "bit_true": SWITCH,
        },
        "erasure": {"loss": SHARE},
        "fading": {
            "snr_db": DECIBEL,
            "kind": (*NAME, "none"),
            "k_db": DECIBEL,
            "pilots": COUNT[:-2],
            "equaliser": NAME,
        },
        "ideal": {},
    },
    "tasks": {
        "gqa": ASKING,
        "imagefolder": {
            **FED,
            "path": TEXT,
            "model": TEXT,
            "checkpoint": (3, True),
            "pretrained": SWITCH,
            "image_px": COUNT[:-2],
            "quality": NAME,
            "per_split": SPLITS,
            "skip_broken": SWITCH,
            "pos_embed_antialias": SWITCH,
            "library": NAME,
            "background": COLOUR,
            "shifted": (3, True),
            "classes": NAME,
            "groups": (3, "pattern", {"pattern": 3}),
        },
        "photos": {},
        "scenes_vqa": {},
        "scienceqa": {**ASKING, "split": TEXT},
        "tensors": {"path": TEXT, "per_split": SPLITS},
    },
    "metrics": {"lpips": {}, "psnr_db": {}, "ssim": {}},
}
REQUIRED: dict[str, Any] = {
    "attack": "ridge",
    "n": 8,
    "match": {"name": "threshold", "thresholds": 0.9},
    "tokens": 4,
    "ratio": 0.5,
    "proportions": 0.5,
    "thresholds": 0.9,
    "r": 4,
    "keep": 0.5,
    "rank": 4,
    "strength": 0.1,
    "p": 0.1,
    "snr_db": 10.0,
    "loss": 0.1,
    "path": "nowhere",
    "model": "nothing",
    "k_db": None,
}
TOGETHER = {"cut", "prompt", "per_split"}
"""Options of which some bad values show only beside others, the victim or the data: the constructor refuses them."""


def options_of(group: str, name: str) -> dict[str, Option]:
    return {k: v for k, v in signature_of(load(group, name)).options.items() if k not in SUPPLIED}


def required(group: str, name: str) -> dict[str, Any]:
    return {key: REQUIRED[key] for key, option in options_of(group, name).items() if option.required}


def suite_of(group: str, name: str, options: dict[str, Any]) -> Any:
    """A suite that names the plug-in where its group belongs."""
    spec, base = {"name": name, **options}, {"name": "s", "task": "photos", "attacks": ["floor_mean"]}
    points: list[dict[str, Any]] = [{"name": "p"}]
    match group:
        case "attacks":
            base["attacks"] = [spec]
        case "tasks":
            base["task"] = spec
        case "metrics":
            base["metrics"] = [spec]
        case "channels":
            base["channels"] = ["ideal", spec]
        case "defenses":
            base["defense"] = spec
        case "reductions" | "codecs":
            points = [{"name": "p", group[:-1]: spec}]
        case "perturbations":
            points = [{"name": "p", "perturb": ["shuffle", spec]}]
    return parse_suite({**base, "operating_points": points})


def every_option() -> Iterator[tuple[str, str, str]]:
    for group, rows in BAD.items():
        for name, options in rows.items():
            for option in options:
                yield group, name, option


@pytest.mark.parametrize("group", BAD)
def test_the_table_holds_every_option_of_every_built_in(group: str) -> None:
    own = {name for name, entry in plugins(group).items() if entry.value.startswith("leakgauge.")}
    assert own == set(BAD[group])
    for name, rows in BAD[group].items():
        assert set(rows) == set(options_of(group, name)), name


@pytest.mark.parametrize("group", BAD)
def test_every_option_says_what_it_may_be_and_its_default_is(group: str) -> None:
    for name in BAD[group]:
        for option in options_of(group, name).values():
            assert option.checked, (name, option)
            if not option.required and option.default not in (None, ()):
                other = {**required(group, name), option.name: _copy(option.default)}
                check(group, name, other, given=SUPPLIED)


def _copy(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


@pytest.mark.parametrize(("group", "name", "option"), [*every_option()])
def test_validate_refuses_bad_values_in_one_line(group: str, name: str, option: str) -> None:
    values = BAD[group][name][option]
    assert len(values) >= 2
    for value in values:
        suite = suite_of(group, name, {**required(group, name), option: value})
        if option in TOGETHER and not _refused(suite):
            continue
        with pytest.raises(LeakgaugeError) as caught:
            prepare(suite, torch.device("cpu"))
        line = str(caught.value)
        assert option in line, line
        assert name in line, line
        assert "\n" not in line
        assert len(line) < 400, line
        assert " is not " in line or "wanted is" in line or "unknown" in line or "names no" in line or "missing" in line


def _refused(suite: Any) -> bool:
    try:
        check_suite(suite)
    except LeakgaugeError:
        return True
    return False


class _Author(Attack):
    """What a third party may write; annotations may be odd, or name what only type checkers import."""

    name = "authors"

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1, le=100)],
        kind: Literal["a", "b"] = "a",
        rate: float = None,  # type: ignore[assignment]  # noqa: RUF013
        weights: Path | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
        limit: Annotated[float, Field(allow_inf_nan=True)] = math.inf,
        mystery: "OnlyForTypeCheckers" = None,  # noqa: F821
        bare=3,
        tables: dict[str, list[int]] | None = None,
        **more: Any,
    ) -> None:
        self.given = {
            **{"bounds": bounds, "weights": weights, "bare": bare, "limit": limit, "mystery": mystery},
            **more,
        }

    def fit(self, view: Any, auxiliary: Any, rng: Any) -> None: ...

    def reconstruct(self, observations: Any, rng: Any) -> Any: ...


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps = 0 is not a whole number from 1 to 100"),
        ({"steps": True}, "steps = True is not a whole number"),
        ({"steps": "3"}, "steps = '3' is not"),
        ({"steps": 3, "kind": "c"}, "kind = 'c' is not one of a, b"),
        ({"steps": 3, "rate": math.nan}, "rate = nan is not a number"),
        ({"steps": 3, "bounds": [0.0]}, "bounds = .* is not a list of 2 numbers"),
        ({"steps": 3, "bounds": [0.0, "x"]}, r"bounds\[1\] = 'x', wanted is a list of 2 numbers"),
        ({"steps": 3, "weights": 4}, "weights = 4 is not"),
        ({"steps": 3, "tables": {"a": ["1"]}}, "tables = .* is not a mapping"),
        ({}, "option 'steps' is missing"),
    ],
)
def test_a_third_partys_options_are_checked_from_its_annotations(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_options(_Author, options, "attacks: mine")


def test_a_third_party_without_annotations_is_taken_at_its_word() -> None:
    given = {"steps": 3, "rate": None, "bounds": [0, 2], "weights": "a/b", "limit": math.inf}
    given |= {"mystery": "anything", "bare": "three", "unheard_of": [1]}
    made = _Author(**check_options(_Author, given, "attacks: mine"))
    assert made.given["bounds"] == (0.0, 2.0)
    assert made.given["weights"] == Path("a/b")
    assert made.given["bare"] == "three"
    assert made.given["unheard_of"] == [1]


def test_options_handed_on_to_a_base_are_checked_there() -> None:
    class Mine(SetDecoder):
        name = "mine"

        def __init__(self, extra: Literal["x"] = "x", **options: Any) -> None:
            super().__init__(**options)

    with pytest.raises(ConfigError, match="steps = 0"):
        check_options(Mine, {"extra": "x", "steps": 0}, "attacks: mine")
    assert check_options(Mine, {"steps": 5}, "attacks: mine") == {"steps": 5}


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": [{"name": "ssim", "window": 3}]},
        {"channels": ["ideal", {"name": "awgn", "snr_db": "10"}]},
        {
            "attacks": ["floor_mean", {"label": "unused", "name": "ridge", "penalty": 0}],
            "cells": [{"attacks": ["floor_mean"]}],
        },
        {"threat_models": [{"observer": "eavesdropper", "channel": {"name": "awgn", "snr_db": "0"}}]},
        {"operating_points": [{"name": "p", "victim": "mine"}]},
        {"operating_points": [{"name": "p", "channel": {"name": "awgn", "snr_db": 3}}]},
        {"defense": {"name": "split_pipeline", "device": "cuda"}},
    ],
)
def test_whatever_a_suite_names_is_checked(change: dict[str, Any]) -> None:
    suite = parse_suite(
        {"name": "s", "task": "photos", "operating_points": [{"name": "p"}], "attacks": ["floor_mean"], **change}
    )
    with pytest.raises(ConfigError):
        check_suite(suite)


@pytest.mark.parametrize(
    "change",
    [
        {"proxy": {"attack": {"name": "ridge", "penalty": -1}}},
        {"proxy": {"attack": "ridge", "floors": [{"name": "floor_nearest", "candidates": 0}]}},
        {"choices": {"codec": [{"name": "uniform", "bits": 1}]}},
        {"choices": {"channel": [{"name": "awgn", "snr_db": True}]}},
        {"baselines": [{"name": "b", "reduction": {"name": "tome", "r": -1}}]},
        {"defense": {"name": "split_pipeline", "packet_tokens": 0}},
        {"remeasure": {"attacks": [{"name": "set_decoder", "steps": "many"}]}},
        {"task": {"name": "photos", "side": 3}},
    ],
)
def test_whatever_a_search_space_names_is_checked(change: dict[str, Any]) -> None:
    space = parse_space({"name": "s", "task": "photos", "objectives": ["quality", "payload_bytes"], **change})
    with pytest.raises(ConfigError):
        check_space(space)
