from __future__ import annotations

import pytest
from search_spaces import prepared

from harness.search.study import Prepared


@pytest.fixture(scope="session")
def ready() -> Prepared:
    return prepared()
