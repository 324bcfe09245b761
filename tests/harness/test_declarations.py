"""What plug-ins state of themselves is checked before anything runs, and the line names plug-in and field."""

import pytest

from leakgauge.harness.contracts.attack import Attack
from leakgauge.harness.contracts.declarations import Knowledge, check_declarations, check_knowledge_type
from leakgauge.harness.contracts.metric import Metric
from leakgauge.harness.errors import PluginError
from leakgauge.harness.suite.registry import create, plugins


class Good(Attack):
    name = "good"

    def fit(self, view, auxiliary, rng):
        pass

    def reconstruct(self, observations, rng):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("knowledge", {"merge_map": True}, "knowledge is dict .*not a Knowledge"),
        ("knowledge", "white-box", "knowledge is str 'white-box'"),
        ("knowledge", None, "knowledge is NoneType"),
        ("knowledge", Knowledge(sizes="yes"), "knowledge: sizes is str 'yes', expected bool"),
        ("knowledge", Knowledge(victim="whitebox"), "knowledge: victim is str 'whitebox', expected 'none' or"),
        ("training", "closed-form", "training is str 'closed-form', expected 'closed_form' or"),
        ("layout", True, "layout is bool"),
        ("least_steps", "many", "least_steps is str 'many', expected int"),
        ("floor", "no", "floor is str 'no', expected bool"),
        ("caveat", 3, "caveat is int 3"),
        ("name", 7, "name is int 7, expected str"),
    ],
)
def test_a_field_of_another_type_is_named(field, value, message):
    broken = type("Broken", (Good,), {field: value})
    with pytest.raises(PluginError, match=f"attack 'broken'.*{message}") as caught:
        check_declarations(broken(), "attack 'broken'")
    assert "\n" not in str(caught.value)


def test_what_is_not_stated_is_named():
    class Nameless(Metric):
        unit, leaks_when = "dB", "up"

        def score(self, originals, reconstructions):
            raise NotImplementedError

    with pytest.raises(PluginError, match="name is not stated -- state name: str"):
        check_declarations(Nameless(), "metric")
    Nameless.name = "n"
    with pytest.raises(PluginError, match="leaks_when is str 'up', expected 'higher' or 'lower'"):
        check_declarations(Nameless(), "metric")


def test_a_proper_plug_in_passes_and_so_does_what_derives_from_nothing():
    check_declarations(Good(), "here")
    check_declarations(Good, "here")
    check_declarations(object(), "here")
    assert check_knowledge_type(Knowledge(victim="query"), "here").victim == "query"


@pytest.mark.parametrize("group", ["attacks", "metrics", "tasks", "reductions", "channels", "codecs"])
def test_every_built_in_class_states_what_it_must(group):
    for name, point in plugins(group).items():
        check_declarations(point.load(), name)


def test_the_registry_checks(monkeypatch):
    floor = plugins("attacks")["floor_mean"].load()
    monkeypatch.setattr(floor, "knowledge", "none")
    with pytest.raises(PluginError, match=r"attacks: x \(attack 'floor_mean'\): knowledge is str 'none'"):
        create("attacks", "floor_mean", {}, where="attacks: x")
