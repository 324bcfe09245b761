import pytest
from search_spaces import small

from leakgauge.harness.errors import ConfigError
from leakgauge.harness.search.space import load_space, parse_space

SPACE = {"name": "s", "task": "photos", "objectives": ["quality", "payload_bytes"]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"obectives": []}, "did you mean 'objectives'?"),
        ({"objectives": ["qualty"]}, "unknown 'qualty' (did you mean 'quality'?)"),
        ({"share": {"lo": 0}}, "unknown key 'lo' (did you mean 'low'?)"),
        ({"share": {"low": 0.5, "high": 0.5}}, "low = 0.5 is not below high = 0.5"),
        ({"sampler": "gpp"}, "did you mean 'gp'?"),
        ({"family": "tresholds"}, "did you mean 'threshold'?"),
        ({"objectives": ["quality", "leakage"]}, "leakage needs a `proxy`"),
        ({"constraints": [{"metric": "tokens"}]}, "give one of at_most, at_least, drop_at_most"),
        ({"constraints": [{"metric": "tokens", "drop_at_most": 1}]}, "drop_at_most is for quality"),
        ({"reference": {"tokens": 9}}, "'tokens' is no objective"),
        ({"objectives": ["quality", "quality"]}, "occurs twice"),
    ],
)
def test_a_mistake_is_one_line_with_its_place_and_mend(changes, said):
    with pytest.raises(ConfigError) as caught:
        parse_space({**SPACE, **changes}, where="mine.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("mine.yaml")


@pytest.mark.parametrize("name", ["photos", "photos-private"])
def test_shipped_spaces_load(name):
    space = load_space(name)
    assert space.name == name
    assert space.remeasure is not None


def test_the_private_space_is_the_public_one_with_leakage():
    spaces = {name: load_space(name) for name in ("photos", "photos-private")}
    assert spaces["photos-private"].objectives == (*spaces["photos"].objectives, "leakage")
    assert spaces["photos-private"].baselines == spaces["photos"].baselines


def test_overrides_and_files(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntask: photos\nobjectives: [quality]\n")
    assert load_space(str(path), ["trials=7", "share.high=0.5"]).trials == 7
    path.write_text("- a list")
    with pytest.raises(ConfigError, match="mapping"):
        load_space(str(path))
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_space(str(path))
    with pytest.raises(ConfigError, match="did you mean 'photos'"):
        load_space("photoss")


def test_the_channels_are_the_choices_or_the_one():
    assert [str(channel) for channel in small().channels] == ["ideal"]
    noisy = small(choices={"channel": [{"name": "awgn", "snr_db": 0}, {"name": "awgn", "snr_db": 10}]})
    assert [channel.options["snr_db"] for channel in noisy.channels] == [0, 10]
