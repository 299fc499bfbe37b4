"""What a keeper shows of its worker, over real processes."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import psutil
import pytest
from support.aio import until
from support.backends import Backend
from support.http import fetch
from support.keepers import KeeperProcess, keepers

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="keepers are Linux's")]

MOST = 72.0
"""MiB of a keeper that serves its health."""


async def url_of(keeper: KeeperProcess) -> str:
    await keeper.says("health page: ")
    return str(re.findall(r"health page: (http://[0-9.:]+)/", keeper.output)[-1])


async def leads(url: str, term: int = 0) -> bool:
    told = (await fetch(url, "/health")).json
    return bool(told["role"] == "leader" and told["term"] > term and told["status"] == "running")


async def test_it_is_small_on_each_backend(backend: Backend, tmp_path: Path) -> None:
    """A keeper that leads on a real backend, and was scraped and looked at, stays below its limit of memory."""
    async with keepers(tmp_path, backend) as them:
        keeper = await them.worker("a", health="127.0.0.1:0")
        url = await url_of(keeper)
        await until(lambda: leads(url))
        for path in ("/", "/health", "/readyz", "/livez", *["/metrics"] * 20):
            assert (await fetch(url, path)).status == 200
        size = psutil.Process(keeper.pid).memory_info().rss / 2**20
        print(f"keeper on {backend.name}: {size:.1f} MiB")
        assert size <= MOST
        keeper.signal(signal.SIGTERM)
        assert await keeper.ended() == 0


async def test_a_worker_that_is_killed_shows_and_comes_back(tmp_path: Path) -> None:
    """After kill -9 of the worker the keeper is alive and not ready, tells why, and leads again in a later term."""
    async with keepers(tmp_path) as them:
        keeper = await them.worker("a", restart="always", health="127.0.0.1:0")
        url = await url_of(keeper)
        await until(lambda: leads(url))
        before = (await fetch(url, "/health")).json["term"]
        inits = keeper.inits()
        (worker,) = (each for each in keeper.below() if each not in inits)
        worker.kill()

        async def is_told() -> bool:
            ready = await fetch(url, "/readyz")
            assert (await fetch(url, "/livez")).status == 200
            return ready.status == 503 and "the worker" in ready.text

        await until(is_told)
        assert "SIGKILL" in (await fetch(url, "/health")).json["last_error"]
        await until(lambda: leads(url, before))
        metrics = (await fetch(url, "/metrics")).text
        assert "cluster_lock_worker_starts_total 2.0" in metrics
        assert 'cluster_lock_transitions_total{lock="x",reason="worker_ended",to="standby"} 1.0' in metrics


async def test_a_standby_is_healthy(tmp_path: Path) -> None:
    """A keeper whose worker stands by is ready and alive, and names the leader; the probes of a container pass."""
    async with keepers(tmp_path) as them:
        first = await them.worker("a", health="127.0.0.1:0")
        leader = await url_of(first)
        await until(lambda: leads(leader))
        second = await them.worker("b", health="127.0.0.1:0")
        url = await url_of(second)

        async def stands_by() -> bool:
            told = (await fetch(url, "/health")).json
            return [told[name] for name in ("status", "role", "leader")] == ["running", "standby", "a"]

        await until(stands_by)
        assert (await fetch(url, "/readyz")).status == 200
        assert (await fetch(url, "/livez")).status == 200
