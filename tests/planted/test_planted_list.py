"""The list of planted faults fits the code: each can be planted, and its test exists. ``make planted`` plants them."""

import pytest
from faults import FOLDER, ROOT, Fault, read_faults

FAULTS = read_faults()


def test_no_fault_is_stale():
    stale = {fault.name: why for fault in FAULTS if (why := fault.stale(ROOT))}
    assert not stale


def test_the_list_covers_what_can_move_a_number():
    assert len(FAULTS) >= 30
    assert {fault.area for fault in FAULTS} == {path.stem for path in FOLDER.glob("*.yaml")}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"file": "harness/nothing.py"}, "not there"),
        ({"old": "no such text"}, "stands 0 times"),
        ({"old": "    return"}, "not once"),
        ({"new": "return ("}, "no Python"),
        ({"test": "tests/planted/test_planted_list.py::test_nothing"}, "no test"),
        ({"test": "tests/planted/test_nothing.py::test_no_fault_is_stale"}, "no test"),
    ],
)
def test_what_is_stale_is_said(changes, said):
    here = "tests/planted/test_planted_list.py::test_no_fault_is_stale"
    sound = {"file": "harness/values/decoding.py", "old": "from __future__ import annotations", "new": "", "test": here}
    assert not Fault(name="one", area="here", **sound).stale(ROOT)
    assert said in Fault(name="one", area="here", **{**sound, **changes}).stale(ROOT)
