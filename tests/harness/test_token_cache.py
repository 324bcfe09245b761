"""The token cache: what is read back is what was sent, stale or damaged entries are computed again, size is bounded."""

import os

import pytest
import torch
from safetensors import SafetensorError

from leakgauge.defenses.pipeline import SplitPipeline
from leakgauge.harness.contracts.link import Encoded
from leakgauge.harness.errors import ConfigError, StoreError
from leakgauge.harness.measurement.attacker_view import GrantedView
from leakgauge.harness.measurement.transmitting import transmit_all
from leakgauge.harness.store import code_digest as code_digests
from leakgauge.harness.store import run_folder as store
from leakgauge.harness.store.code_digest import code_digest, forget
from leakgauge.harness.store.encoded_file import read_encoded, to_bytes
from leakgauge.harness.store.token_cache import TokenCache, check_once
from leakgauge.harness.suite.schema import ThreatModel
from leakgauge.harness.system.machine import machine_of
from leakgauge.harness.values.images import ImageSet
from leakgauge.harness.values.seeding import Streams
from leakgauge.harness.values.tokens import TokenBatch

CPU, RNG = torch.device("cpu"), Streams(0)
MERGED = {"cut": 2, "reduction": {"name": "threshold", "thresholds": 0.9}}


@pytest.fixture(scope="module")
def few(photographs):
    return photographs.select(range(6))


def sent(victim, images, calibration=None, **options) -> Encoded:
    pipeline = SplitPipeline(victim, CPU, **{**MERGED, **options})
    pipeline.prepare(images if calibration is None else calibration, RNG)
    return transmit_all(pipeline, images, RNG, 4)


def assert_same(a: Encoded, b: Encoded) -> None:
    assert a.ids == b.ids
    assert a.sizes_sent == b.sizes_sent
    assert a.packets == b.packets
    assert list(a.account) == list(b.account)
    assert all(torch.equal(a.account[name], b.account[name]) for name in a.account)
    for name in ("payload_bytes", "side_bytes", "tokens_per_layer"):
        assert torch.equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype
    assert (a.symbols is None) == (b.symbols is None)
    for one, other in ((a.decoded, b.decoded), (a.symbols, b.symbols)):
        if one is not None:
            assert_same_tokens(one, other)


def assert_same_tokens(one: TokenBatch, other: TokenBatch) -> None:
    assert one.prefix == other.prefix
    for name in ("tokens", "lengths", "sizes", "merge_map"):
        assert torch.equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"codec": "float16"},
        {"codec": {"name": "uniform", "bits": 4}},
        {"codec": {"name": "jscc", "uses_per_token": 4, "steps": 0}},
        {"channel": {"name": "erasure", "loss": 0.2}},
    ],
    ids=["float32", "float16", "uniform", "symbols", "packets"],
)
def test_what_is_stored_is_what_was_sent(victim, few, tmp_path, options):
    encoded = sent(victim, few, **options)
    (tmp_path / "a.safetensors").write_bytes(to_bytes(encoded, "a"))
    assert_same(read_encoded(tmp_path / "a.safetensors", "a"), encoded)


def test_the_second_time_nothing_is_computed(victim, few, tmp_path):
    encoded = sent(victim, few)
    first, second = TokenCache(tmp_path, 2**30), TokenCache(tmp_path, 2**30)
    assert_same(first.encoded("key", lambda: encoded), encoded)

    def refuse() -> Encoded:
        raise AssertionError("computed again")

    assert_same(second.encoded("key", refuse), encoded)
    assert (first.hits, first.misses, second.hits, second.misses) == (0, 1, 1, 0)
    assert_same(second.encoded("another key", lambda: encoded), encoded)
    assert second.misses == 1


@pytest.mark.parametrize("damage", ["empty", "cut short", "text", "another version", "bit"])
def test_a_damaged_entry_is_computed_again(victim, few, tmp_path, damage):
    encoded = sent(victim, few)
    cache = TokenCache(tmp_path, 2**30)
    cache.encoded("key", lambda: encoded)
    path = tmp_path / "key.safetensors"
    data = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "cut short": data[: len(data) // 2],
            "text": b"not safetensors" * 100,
            "another version": data.replace(b'"version":"2"', b'"version":"0"'),
            "bit": data[:-999] + bytes([data[-999] ^ 4]) + data[-998:],
        }[damage]
    )
    assert path.read_bytes() != data
    assert_same(cache.encoded("key", lambda: encoded), encoded)
    assert cache.misses == 2
    assert_same(read_encoded(path, "key"), encoded)


def test_the_least_recently_used_go_first(victim, few, tmp_path):
    encoded = sent(victim, few)
    size = len(to_bytes(encoded, "a"))
    cache = TokenCache(tmp_path, 3 * size)
    for age, key in enumerate(("c", "b", "a")):
        cache.encoded(key, lambda: encoded)
        os.utime(tmp_path / f"{key}.safetensors", (1000 + age, 1000 + age))
    cache.encoded("c", lambda: pytest.fail("c is stored"))
    cache.encoded("d", lambda: encoded)
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {"a", "c", "d"}
    TokenCache(tmp_path, size - 1).encoded("too large", lambda: encoded)
    assert not (tmp_path / "too large.safetensors").exists()


def test_swapped_entries_are_computed_again(victim, few, tmp_path, caplog):
    one, other = sent(victim, few), sent(victim, few, codec="float16")
    cache = TokenCache(tmp_path, 2**30)
    cache.encoded("one", lambda: one)
    cache.encoded("other", lambda: other)
    a, b = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    first = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(first)
    assert_same(cache.encoded("one", lambda: one), one)
    assert_same(cache.encoded("other", lambda: other), other)
    assert cache.misses == 4
    assert caplog.text.count("it holds other tokens than its name says") == 2


def test_no_bit_of_an_entry_changes_unseen(victim, few, tmp_path):
    """Every byte of a small entry in turn, but for the padding of its header, which says nothing."""
    encoded = sent(victim, few.select([0]), codec={"name": "uniform", "bits": 2})
    data = to_bytes(encoded, "key")
    path = tmp_path / "key.safetensors"
    for at in range(0, len(data), max(1, len(data) // 150)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        try:
            found = read_encoded(path, "key")
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, IndexError, RuntimeError):
            continue
        assert_same(found, encoded)


def test_the_machine_is_part_of_the_key(monkeypatch):
    here = machine_of(CPU)
    assert {"processor", "instructions", "cpu_capability", "onednn"} <= set(here)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    assert machine_of(CPU) != here


def test_what_killed_writers_left_is_swept(victim, few, tmp_path):
    old, young = tmp_path / ".a.safetensors.abcdefgh", tmp_path / ".b.safetensors.abcdefgh"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    TokenCache(tmp_path, 2**30).encoded("key", lambda: sent(victim, few))
    assert not old.exists()
    assert young.exists()


def test_a_cache_that_cannot_be_written_loses_no_result(victim, few, tmp_path, monkeypatch, caplog):
    def full(path, data):
        raise StoreError("cannot write: No space left on device", where=str(path))

    monkeypatch.setattr("leakgauge.harness.store.token_cache.write_atomic", full)
    encoded = sent(victim, few)
    assert TokenCache(tmp_path, 2**30).encoded("key", lambda: encoded) is encoded
    assert "No space left" in caplog.text
    assert store.write_atomic is not full


def test_the_environment_chooses_folder_and_limit(monkeypatch, tmp_path, victim, few):
    encoded = sent(victim, few)
    monkeypatch.setenv("LEAKGAUGE_CACHE", str(tmp_path / "here"))
    TokenCache.from_environment().encoded("key", lambda: encoded)
    assert (tmp_path / "here" / "key.safetensors").is_file()
    monkeypatch.setenv("LEAKGAUGE_CACHE", "off")
    off = TokenCache.from_environment()
    assert off.encoded("key", lambda: encoded) is encoded
    assert off.encoded("key", lambda: encoded) is encoded
    assert off.misses == 2
    monkeypatch.setenv("LEAKGAUGE_CACHE_GIB", "plenty")
    with pytest.raises(ConfigError, match="'plenty' is not a size"):
        TokenCache.from_environment()


def test_the_code_is_part_of_the_key(tmp_path, monkeypatch):
    before = code_digest()
    assert code_digest() == before
    forget()
    monkeypatch.setattr("leakgauge.harness.store.code_digest.package_versions", lambda: {"torch": "another"})
    assert code_digest() != before
    forget()


@pytest.mark.parametrize("change", ["a plug-in", "what it imports", "its table", "nothing"])
def test_every_file_that_a_plugin_is_made_of_is_in_its_digest(tmp_path, monkeypatch, change):
    package = tmp_path / "digested_codec"
    package.mkdir()
    (package / "__init__.py").write_text("from digested_below import table\n")
    (package / "table.json").write_text("[1]")
    (tmp_path / "digested_below.py").write_text("table = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    before = code_digests.code_of(["digested_codec"])
    assert {"leakgauge.harness", "digested_codec", "digested_below", "torch"} <= set(before)
    assert not {"typer", "rich", "os"} & set(before)
    changed = {"a plug-in": package / "__init__.py", "what it imports": tmp_path / "digested_below.py"}
    changed |= {"its table": package / "table.json", "nothing": package / "README.md"}
    with changed[change].open("a") as file:
        file.write(" ")
    forget()
    after = code_digests.code_of(["digested_codec"])
    differs = {"a plug-in": "digested_codec", "what it imports": "digested_below", "its table": "digested_codec"}
    assert {name for name in after if after[name] != before[name]} == (
        {differs[change]} if change in differs else set()
    )
    forget()


def test_pixels_that_changed_under_their_names_are_not_taken_from_the_cache(few):
    renamed = ImageSet(few.pixels.flip(0), few.ids, few.labels)
    assert renamed.digest() == few.digest()
    assert renamed.full_digest() != few.full_digest()


def test_what_an_attack_sends_while_it_reconstructs_is_not_kept(victim, few):
    names = []

    def cached(name, compute):
        names.append(name)
        return compute()

    pipeline = SplitPipeline(victim, CPU, cut=1)
    view = GrantedView(
        victim,
        pipeline,
        ThreatModel(victim="white-box"),
        image_shape=(3, 64, 64),
        streams=RNG,
        batch_size=4,
        device=CPU,
        cached=cached,
    )
    view.observe(few)
    view.unreduced(few)
    assert [name.split()[0] for name in names] == ["own", "unreduced"]
    branch = view.branch()
    branch.observe(few.select([0]))
    branch.unreduced(few.select([0]))
    assert len(names) == 2


def test_a_damaged_note_of_a_check_counts_for_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAKGAUGE_CACHE", str(tmp_path / "cache"))
    made = []
    check_once("a", lambda: made.append("a"))
    (tmp_path / "cache" / "a.passed").rename(tmp_path / "cache" / "b.passed")
    check_once("b", lambda: made.append("b"))
    check_once("b", lambda: made.append("again"))
    assert made == ["a", "b"]


def test_a_check_that_passed_is_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAKGAUGE_CACHE", str(tmp_path / "cache"))
    made = []

    def fails():
        raise ConfigError("wrong")

    with pytest.raises(ConfigError):
        check_once("a", fails)
    check_once("a", lambda: made.append(1))
    check_once("a", fails)
    assert made == [1]
    with pytest.raises(ConfigError):
        check_once("b", fails)
    monkeypatch.setenv("LEAKGAUGE_CACHE", "off")
    with pytest.raises(ConfigError):
        check_once("a", fails)
