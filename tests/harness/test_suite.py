import pytest
import yaml

from leakgauge.harness.contracts.declarations import Knowledge
from leakgauge.harness.errors import AccessDeniedError, ConfigError
from leakgauge.harness.suite.planning import by_exposure, check_knowledge, missing_grant, plan
from leakgauge.harness.suite.schema import Knows, ThreatModel, load_suite, parse_suite, shipped_suites

MINIMAL = {"name": "s", "task": "photos", "operating_points": [{"name": "undefended"}], "attacks": ["floor_mean"]}


def suite_with(**changes):
    return parse_suite({**MINIMAL, **changes})


def test_every_shipped_suite_parses_and_plans():
    assert {"quick", "smoke", "channel-sweep"} <= set(shipped_suites())
    for name in shipped_suites():
        suite = load_suite(name)
        cells = plan(suite, "data")
        check_knowledge(cells)
        assert cells, name
        assert suite.name == name
        assert suite.description


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"atacks": []}, "unknown key 'atacks' .did you mean 'attacks'"),
        ({"attacks": []}, "attacks"),
        ({"threat_models": [{"knows": {"szies": True}}]}, "did you mean 'sizes'"),
        ({"operating_points": [{"name": "a"}, {"name": "a"}]}, "occurs twice"),
        ({"cells": [{"attacks": ["floor_maen"]}]}, "did you mean 'floor_mean'"),
        ({"baseline": "undefnded"}, "did you mean 'undefended'"),
        ({"operating_points": [{"name": "../../etc"}]}, "operating_points.0.name"),
        ({"seeds": []}, "seeds"),
        ({"threat_models": [{"observer": "eavesdropper"}]}, "threat_models.0: an eavesdropper needs a `channel`"),
        ({"threat_models": [{"channel": "awgn"}]}, "`channel` is for `observer: eavesdropper`"),
        ({"threat_models": [{"observer": "eavesdroper"}]}, "threat_models.0.observer"),
        ({"threat_models": [{"observer": "eavesdropper", "channel": {"snr_db": 0}}]}, "channel: no key 'name'"),
        ({"threat_models": [{"chanel": "awgn"}]}, "did you mean 'channel'"),
        ({"bandwidth_hz": 0}, "bandwidth_hz"),
        ({"bandwidth_hz": float("inf")}, "bandwidth_hz"),
    ],
)
def test_mistakes_are_named_with_a_mend(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        suite_with(**changes)
    assert "\n" not in str(caught.value)


def test_overrides_reach_nested_keys(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    suite = load_suite(str(path), ["seeds=[3, 4]", "threat_models=[{victim: none}]", "attacks.0=ridge"])
    assert suite.seeds == (3, 4)
    assert suite.attacks[0].label == "ridge"
    for bad in ("seeds", "=3", "attacks.9=x"):
        with pytest.raises(ConfigError, match="--set"):
            load_suite(str(path), [bad])


@pytest.mark.parametrize("text", ["[1, 2]", "name: [", "just words"])
def test_files_that_are_no_suite(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_suite(str(path))


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean 'quick'"):
        load_suite("quik")


def test_keys_follow_content_not_order():
    first = suite_with(
        attacks=["floor_mean", "ridge"], channels=["ideal", {"label": "a", "name": "awgn", "snr_db": 10}]
    )
    second = suite_with(
        attacks=["ridge", "floor_mean"], channels=[{"label": "a", "name": "awgn", "snr_db": 10}, "ideal"]
    )
    assert {c.key for c in plan(first, "d")} == {c.key for c in plan(second, "d")}
    assert {c.key for c in plan(first, "d")}.isdisjoint({c.key for c in plan(first, "other data")})
    assert len(by_exposure(plan(first, "d"))) == 2


def test_keys_cover_the_eavesdropper_s_channel():
    def keys(**changes):
        model = {"name": "m", "victim": "query", **changes}
        return [c.exposure.key for c in plan(suite_with(threat_models=[model]), "d")]

    near, far = ({"observer": "eavesdropper", "channel": {"name": "awgn", "snr_db": snr}} for snr in (10, 0))
    assert len({*keys(), *keys(**near), *keys(**far)}) == 3


def test_what_an_eavesdropper_is_granted_unasked():
    spy = {"name": "spy", "observer": "eavesdropper", "channel": "ideal"}
    first, second = suite_with(threat_models=[spy, {**spy, "name": "asks", "victim": "query"}]).threat_models
    assert (first.victim, second.victim) == ("none", "query")
    with pytest.raises(AccessDeniedError, match=r"floor_class_mean.*query access.*spy"):
        check_knowledge(plan(suite_with(attacks=["floor_class_mean"], threat_models=[spy]), "d"))
    suite = suite_with(threat_models=[spy])
    assert parse_suite(suite.model_dump(mode="json")) == suite


def test_blocks_select_and_do_not_repeat():
    suite = suite_with(
        operating_points=[{"name": "a"}, {"name": "b", "cut": 2}],
        attacks=["floor_mean", "ridge"],
        cells=[{"operating_points": ["a"]}, {"attacks": ["ridge"]}],
    )
    cells = [(c.exposure.point.name, c.attack.label) for c in plan(suite, "d")]
    assert cells == [("a", "floor_mean"), ("a", "ridge"), ("b", "ridge")]


def test_an_attack_that_needs_more_than_granted_is_refused():
    suite = suite_with(attacks=["floor_class_mean"], threat_models=[{"name": "weak", "victim": "none"}])
    with pytest.raises(AccessDeniedError, match=r"floor_class_mean.*query access.*weak"):
        check_knowledge(plan(suite, "d"))


@pytest.mark.parametrize("field", ["merge_map", "sizes", "order", "channel_state"])
def test_each_missing_grant_is_named(field):
    model = ThreatModel(knows=Knows(**{field: False}))
    assert missing_grant(Knowledge(**{field: True}), model) == field.replace("_", " ")
    assert missing_grant(Knowledge(**{field: True}), ThreatModel(knows=Knows(**{field: True}))) is None
    assert missing_grant(Knowledge(), model) is None
