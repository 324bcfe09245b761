"""What is meant where a suite or a space states nothing comes from what is installed, not from the harness."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from leakgauge.harness.contracts.reduction import Reduction
from leakgauge.harness.errors import ConfigError, PluginError
from leakgauge.harness.search.space import parse_space
from leakgauge.harness.suite import registry
from leakgauge.harness.suite.schema import parse_suite

SUITE = {"name": "s", "task": "photos", "operating_points": [{"name": "undefended"}], "attacks": ["floor_mean"]}
SPACE = {"name": "s", "task": "photos", "objectives": ["quality"]}
NONE = "leakgauge.defenses.reductions.none:NoReduction"


@pytest.fixture
def installed(monkeypatch):
    """Stands in for what distributions register, by group."""
    real = registry.entry_points
    cached = (registry.plugins, registry._rivals, registry.default_of)

    def install(**groups: list[EntryPoint]) -> None:
        def found(group):
            short = group.removeprefix("leakgauge.")
            return groups[short] if short in groups else real(group=group)

        monkeypatch.setattr(registry, "entry_points", found)
        for one in cached:
            one.cache_clear()

    yield install
    monkeypatch.undo()
    for one in cached:
        one.cache_clear()


def default(role: str, value: str) -> EntryPoint:
    return EntryPoint(role, value, "leakgauge.defaults")


def test_the_defaults_are_those_of_the_installed_package():
    suite, space = parse_suite(SUITE), parse_space(SPACE)
    assert (suite.defense.name, space.defense.name) == ("split_pipeline", "split_pipeline")
    assert [(one.label, one.plugin.name) for one in suite.channels] == [("ideal", "ideal")]
    assert (space.channel.name, space.family) == ("ideal", "threshold")
    assert registry.default_of("reductions") == "none"


def test_another_package_names_its_own(installed):
    installed(defaults=[default("channels", "leakgauge.defenses.channels.digital:ErasureChannel")])
    assert registry.default_of("channels") == "erasure"


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([], "of reductions ('reductions') is not registered"),
        ([default("reductions", "elsewhere:Gone")], "is none of them: elsewhere:Gone"),
        ([default("reductions", NONE), default("reductions", "elsewhere:Other")], "registered twice, by"),
    ],
)
def test_a_default_that_is_not_told_is_one_clear_error(installed, points, said):
    installed(defaults=points)
    with pytest.raises(PluginError, match="the default of reductions") as caught:
        registry.default_of("reductions")
    assert said in str(caught.value)
    assert "leakgauge.defaults" in str(caught.value)
    assert len(str(caught.value)) <= 200


def test_a_suite_that_states_all_needs_no_default(installed):
    installed(defaults=[])
    stated = parse_suite({**SUITE, "defense": "vqa_pipeline", "channels": ["erasure"]})
    assert stated.defense.name == "vqa_pipeline"
    with pytest.raises(PluginError, match="the default of defenses"):
        parse_suite(SUITE)


def test_reductions_say_themselves_how_they_are_searched():
    assert parse_space({**SPACE, "family": "proportion"}).searched == ("proportions", False)
    assert parse_space(SPACE).searched == ("thresholds", True)
    assert Reduction.searched is None
    with pytest.raises(ConfigError, match=r"unknown 'tome' \(known: proportion, threshold\)"):
        parse_space({**SPACE, "family": "tome"})


def test_a_default_that_cannot_be_searched_is_refused(installed):
    installed(
        defaults=[
            default("search", NONE),
            default("defenses", "leakgauge.defenses.pipeline:SplitPipeline"),
            default("channels", "leakgauge.defenses.channels.analog:IdealChannel"),
        ]
    )
    with pytest.raises(PluginError, match="'none' cannot be searched"):
        _ = parse_space(SPACE).searched
