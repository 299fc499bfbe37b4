from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.hosts import Hosts
from support.nursery import Nursery


@pytest.fixture(scope="session")
def hosts(request: pytest.FixtureRequest, nursery: Nursery) -> Iterator[Hosts]:
    """Seven hosts, three of them with a store: parametrised by its backend."""
    with Hosts(request.param, nursery) as hosts:
        yield hosts
