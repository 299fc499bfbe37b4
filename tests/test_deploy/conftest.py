"""One docker daemon for all tests of the deployment files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.docker import Docker, docker_daemon


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    with docker_daemon() as daemon:
        yield daemon
