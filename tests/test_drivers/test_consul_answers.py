"""Answers that are none of Consul's, of anybody who stands at an agent's address: of any size, of any shape."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.answering import Answering

from cluster_lock.drivers.consul import ConsulDriver
from cluster_lock.errors import BackendUnavailable
from cluster_lock.values import Entry, Grant, Lease

LEASE = Lease("a", 5.0, "holder")
ROW = {"Key": "cluster-lock/leader/x", "ModifyIndex": 5, "CreateIndex": 5, "LockIndex": 1, "Value": "e30="}
GRANT = Grant("leader/x", LEASE, 5, 5, b"{}")
HEIR = Entry("standby/y", "b", 5, b"{}")
CALLS: dict[str, Callable[[ConsulDriver], Coroutine[Any, Any, Any]]] = {
    "read": lambda driver: driver.read(["leader/x", "leader/y"]),
    "read one": lambda driver: driver.read(["leader/x"]),
    "wait": lambda driver: driver.wait_changed(["leader/x"], 0, 1.0),
    "scan": lambda driver: driver.scan("standby/"),
    "inspect": lambda driver: driver.inspect(""),
    "acquire": lambda driver: driver.acquire(LEASE, "leader/x", b"{}"),
    "release": lambda driver: driver.release(GRANT, b"{}"),
    "transfer": lambda driver: driver.transfer(GRANT, HEIR, b"{}"),
    "revoke": lambda driver: driver.revoke(LEASE),
    "grant": lambda driver: driver.grant_lease("holder", 5.0),
    "announce": lambda driver: driver.announce(LEASE, "standby/x", b"{}"),
    "times": lambda driver: driver.lease_times(["a"]),
    "nodes": lambda driver: driver.nodes(),
}


def outcome(body: bytes, call: str, **more: Any) -> BaseException | None:
    """What `call` raises when the agent answers with `body`."""

    async def main() -> BaseException | None:
        with Answering(body, **more) as agent:
            driver = ConsulDriver([agent.url], request_timeout=20)
            await driver.open()
            try:
                await CALLS[call](driver)
            except Exception as error:  # noqa: BLE001 - it is looked at
                return error
            finally:
                await driver.close()
        return None

    return asyncio.run(main())


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b"[5]",
        b"{}",
        b"5",
        json.dumps([{"Value": "e30="}]).encode(),
        json.dumps([ROW | {"ModifyIndex": "x"}]).encode(),
        json.dumps([ROW | {"ModifyIndex": None}]).encode(),
        json.dumps([ROW | {"Session": 5}]).encode(),
        b'[{"Key": "cluster-lock/leader/x", "Value": "e30=", "ModifyIndex": 1e999}]',
        json.dumps({"Results": [{"KV": {}}], "ID": None, "Servers": [5]}).encode(),
        json.dumps({"Results": [], "ID": 5, "Servers": 5}).encode(),
        json.dumps({"Results": [{"KV": ROW | {"ModifyIndex": "x"}}], "ID": ""}).encode(),
    ],
    ids=lambda body: body[:70].decode(),
)
def test_what_cannot_be_read_is_no_answer(body: bytes, call: str) -> None:
    """Whatever comes instead of Consul's JSON, the driver says that the backend is not available, or found nothing
    wrong with what it needs of it."""
    error = outcome(body, call)
    assert error is None or isinstance(error, BackendUnavailable), error


@pytest.mark.parametrize("call", ["read", "scan", "acquire", "release", "grant"])
def test_brackets_are_no_answer(call: str) -> None:
    """A hundred thousand brackets are an agent that does not serve."""
    assert isinstance(outcome(b"[" * 100_000, call), BackendUnavailable)


def test_an_answer_has_a_largest_size() -> None:
    """An error of more than a MiB is not read to its end; a scan of 10,000 records is."""
    error = outcome(b"x" * (1 << 21), "read", status=500)
    assert "more than 1 MiB" in str(error)
    rows = [ROW | {"Key": f"cluster-lock/standby/x-{number}", "Value": "e30=" * 200} for number in range(10_000)]
    assert outcome(json.dumps(rows).encode(), "scan") is None


def test_a_compressed_answer_is_refused() -> None:
    """What a few bytes could blow up to is not looked at: nobody asked for it."""
    error = outcome(gzip.compress(b"[]"), "read", headers={"Content-Encoding": "gzip"})
    assert isinstance(error, BackendUnavailable)
    assert "encoding 'gzip'" in str(error)


async def test_the_next_agent_is_asked() -> None:
    """Of two agents, one that answers with nonsense does not keep the other one from serving."""
    nonsense = json.dumps([ROW | {"ModifyIndex": "x"}]).encode()
    peers = {"/v1/status/peers": b'["10.0.0.1:8300"]'}
    with Answering(nonsense, pages=peers) as wrong, Answering(json.dumps([ROW]).encode(), pages=peers) as right:
        driver = ConsulDriver([wrong.url, right.url], request_timeout=20)
        await driver.open()
        changes = await driver.read(["leader/x"])
        await driver.close()
        assert changes.entries["leader/x"].index == 5
