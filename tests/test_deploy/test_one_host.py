"""deploy/file as it is shipped: two bots on one host, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.deployment import Deployment
from support.docker import Docker

from cluster_lock import clock

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def deployment(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(docker, "file", tmp_path_factory.mktemp("file")) as deployment:
        yield deployment


async def test_bot_is_killed(deployment: Deployment) -> None:
    """`docker kill` of the leader: the kernel frees the lock with the process, and the other one leads at once."""
    async with deployment.watched() as watched:
        leader = await watched.settled()
        await watched.traffic()
        began = clock.now()
        await watched.compose("kill", leader.service)
        watched.died(leader)
        seconds = await watched.taken_over(leader, began)
        print(f"\nfile: taken over {seconds:.2f} s after docker kill")
        # Much less than the ttl of 15 s, whatever else the machine does.
        assert seconds < 5
        await watched.judge()
