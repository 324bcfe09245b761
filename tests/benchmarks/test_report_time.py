"""The study of the report's time: which files count as changed."""

from leakgauge.benchmarks.studies.report_time import differing, digests_of


def test_files_that_differ_or_that_only_one_report_holds_are_named(tmp_path):
    for name, text in (("one/a/same", "s"), ("other/a/same", "s"), ("one/b", "1"), ("other/b", "2"), ("other/c", "3")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    one, other = digests_of(tmp_path / "one"), digests_of(tmp_path / "other")
    assert set(one) == {"a/same", "b"}
    assert differing(one, other) == ["b", "c"]
    assert differing(one, one) == []
