"""One docker daemon for all tests of the deployment files, and each deployment once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.deployment import Deployment
from support.docker import Docker, docker_daemon


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    with docker_daemon() as daemon:
        yield daemon


@pytest.fixture(scope="session", params=["etcd", "consul"])
def deployment(
    request: pytest.FixtureRequest, docker: Docker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """The shipped cluster with both bots. Each test leaves it as it found it: one leads, the other stands by."""
    with Deployment(docker, request.param, tmp_path_factory.mktemp(request.param)) as deployment:
        yield deployment
