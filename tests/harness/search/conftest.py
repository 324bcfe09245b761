from __future__ import annotations

import pytest
from search_spaces import prepared

from leakgauge.harness.search.study import Prepared


@pytest.fixture(scope="session")
def ready() -> Prepared:
    return prepared()
