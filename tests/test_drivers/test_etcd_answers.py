"""Answers that are none of etcd's, of anybody who stands at an endpoint: of any size, of any shape."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.etcd import opened
from support.refusing import answering_etcd, refusing_etcd

from cluster_lock.drivers.etcd import EtcdDriver
from cluster_lock.drivers.etcd.library import load
from cluster_lock.errors import BackendRefused, BackendUnavailable
from cluster_lock.values import LARGEST, Entry, Grant, Lease

pytestmark = pytest.mark.etcd

LEASE = Lease("000000000000000a", 5.0, "holder")
GRANT = Grant("leader/x", LEASE, 5, 5, b"{}")
HEIR = Entry("standby/y", "000000000000000b", 5, b"{}")
PREFIX = "cluster-lock/"
CALLS: dict[str, Callable[[EtcdDriver], Coroutine[Any, Any, Any]]] = {
    "read": lambda driver: driver.read(["leader/x", "leader/y"]),
    "read many": lambda driver: driver.read([f"leader/{number}" for number in range(200)]),
    "wait": lambda driver: driver.wait_changed(["leader/x"], 3, 0.2),
    "scan": lambda driver: driver.scan("standby/"),
    "inspect": lambda driver: driver.inspect(""),
    "acquire": lambda driver: driver.acquire(LEASE, "leader/x", b"{}"),
    "release": lambda driver: driver.release(GRANT, b"{}"),
    "transfer": lambda driver: driver.transfer(GRANT, HEIR, b"{}"),
    "renew": lambda driver: driver.renew(LEASE),
    "revoke": lambda driver: driver.revoke(LEASE),
    "grant": lambda driver: driver.grant_lease("holder", 5.0),
    "announce": lambda driver: driver.announce(LEASE, "standby/x", b"{}"),
    "withdraw": lambda driver: driver.withdraw(LEASE, "standby/x"),
    "times": lambda driver: driver.lease_times(["a"]),
    "nodes": lambda driver: driver.nodes(),
}


def header(revision: int = 5) -> dict[str, int]:
    return {"cluster_id": 1, "member_id": 2, "revision": revision, "raft_term": 2}


def kv(**more: Any) -> dict[str, Any]:
    about = {"key": b"cluster-lock/leader/x", "value": b"{}", "create_revision": 5, "mod_revision": 5, "version": 1}
    return {**about, "lease": 10, **more}


def ranged(*kvs: Any) -> dict[str, Any]:
    return {"response_range": {"header": header(), "kvs": kvs}}


PUT = {"response_put": {"header": header()}}
TXN, RANGE = "TxnResponse", "RangeResponse"
WRONG: dict[str, tuple[str, dict[str, Any]] | bytes] = {
    "nothing": b"",
    "no message": b"\xff" * 100,
    "a text": b"<html/>",
    "a header": ("StatusResponse", {}),
    "succeeded with nothing": (TXN, {"succeeded": True}),
    "failed with nothing": (TXN, {}),
    "a put for a get": (TXN, {"responses": [PUT, PUT]}),
    "gets for puts": (TXN, {"succeeded": True, "responses": [ranged(), ranged()]}),
    "no operations": (TXN, {"succeeded": True, "responses": [{}, {}]}),
    "no key where one must be": (TXN, {"responses": [ranged()]}),
    "two keys for one": (TXN, {"responses": [ranged(kv(), kv())] * 2}),
    "another key": (TXN, {"responses": [ranged(kv(key=b"x"))] * 2}),
    "a negative index": (TXN, {"responses": [ranged(kv(mod_revision=-5))] * 2}),
    "a huge index": (TXN, {"responses": [ranged(kv(mod_revision=2**62))]}),
    "a huge index in a read": (TXN, {"succeeded": True, "responses": [ranged(kv(mod_revision=2**62)), ranged()]}),
    "a negative index in a read": (TXN, {"succeeded": True, "responses": [ranged(kv(mod_revision=-5)), ranged()]}),
    "a huge revision": (TXN, {"header": header(2**62), "succeeded": True, "responses": [PUT, PUT]}),
    "no revision": (TXN, {"header": header(0), "succeeded": True, "responses": [PUT, PUT]}),
    "a huge index in a range": (RANGE, {"kvs": [kv(mod_revision=2**62)]}),
    "another's keys in a range": (RANGE, {"kvs": [kv(key=b"somebody/else")]}),
    "another lease": ("LeaseGrantResponse", {"ID": 77, "TTL": 5}),
    "a lease without end": ("LeaseKeepAliveResponse", {"ID": 10, "TTL": 2**62}),
    "another lease's renewal": ("LeaseKeepAliveResponse", {"ID": 77, "TTL": 0}),
}


def spelt(answer: tuple[str, dict[str, Any]] | bytes) -> bytes:
    """As it is on the wire."""
    if isinstance(answer, bytes):
        return answer
    kind, content = answer
    message: bytes = getattr(load().rpc, kind)(**{"header": header(), **content}).SerializeToString()
    return message


def outcome(body: bytes, call: str, **more: Any) -> tuple[Any, BaseException | None]:
    """What `call` gives or raises when the endpoint answers with `body`."""

    async def main() -> tuple[Any, BaseException | None]:
        async with answering_etcd(body, **more) as url, opened([url], prefix=PREFIX, request_timeout=20.0) as driver:
            try:
                return await CALLS[call](driver), None
            except Exception as error:  # noqa: BLE001 - it is looked at
                return None, error

    return asyncio.run(main())


def numbers(given: Any) -> list[float]:
    """All indexes, tokens and times in what a verb gave."""
    if isinstance(given, int | float):
        return [given]
    if isinstance(given, list | tuple):
        return [number for each in given for number in numbers(each)]
    if isinstance(given, dict):
        return numbers(list(given.values()))
    names = ("index", "token", "position", "ttl", "entries", "left")
    return [number for name in names for number in numbers(getattr(given, name, None))] if given is not None else []


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_read_is_no_answer(wrong: str, call: str) -> None:
    """Whatever comes instead of etcd's messages, the driver says that the backend is not available, or found nothing
    wrong with what it needs of it; no lease is gone by it, and no number is larger than any of etcd's."""
    given, error = outcome(spelt(WRONG[wrong]), call)
    assert error is None or isinstance(error, BackendUnavailable), repr(error)
    assert all(0 <= number <= LARGEST for number in numbers(given)), given


def test_an_answer_has_a_largest_size() -> None:
    """An answer of more than 64 MiB is not read; a scan of 10,000 records is."""
    kvs = [kv(key=f"{PREFIX}standby/x-{number}".encode(), value=b"x" * 600) for number in range(10_000)]
    given, error = outcome(spelt((RANGE, {"kvs": kvs})), "scan")
    assert error is None
    assert len(given) == 10_000
    _, error = outcome(b"\0" * (65 << 20), "scan")
    assert isinstance(error, BackendUnavailable)
    assert "larger than" in str(error)


def test_a_compressed_answer_is_refused() -> None:
    """What a few bytes could blow up to is not looked at: nobody asked for it."""
    kvs = [kv(key=f"{PREFIX}standby/x".encode(), value=b"x" * (1 << 20))]
    _, error = outcome(spelt((RANGE, {"kvs": kvs})), "scan", compressed=True)
    assert isinstance(error, BackendUnavailable)
    assert "ompress" in str(error)


async def test_the_words_of_an_error_have_an_end() -> None:
    """What an endpoint says when it refuses is shortened before it is told."""
    # 5,000 bytes once encoded: above 8 KiB of trailers gRPC refuses by chance, and with words of its own.
    async with refusing_etcd("UNIMPLEMENTED", "no\n" * 1000) as refusing, opened([refusing.url]) as driver:
        with pytest.raises(BackendRefused) as refused:
            await driver.read(["leader/x"])
        assert len(str(refused.value)) < 1200
        assert "no no no" in str(refused.value)


async def test_the_next_endpoint_is_asked() -> None:
    """Of two endpoints, one that answers with nonsense does not keep the other one from serving."""
    right = spelt((TXN, {"succeeded": True, "responses": [ranged(kv(mod_revision=4))]}))
    async with (
        answering_etcd(b"\xff") as wrong,
        answering_etcd(right) as good,
        opened([wrong, good], prefix=PREFIX) as driver,
    ):
        assert (await driver.read(["leader/x"])).entries["leader/x"].index == 4


@pytest.mark.parametrize("token", ["", "a\nb", "\u20ac", "x" * 100_000], ids=["none", "two lines", "no ASCII", "long"])
async def test_a_token_that_is_none(token: str) -> None:
    """A token that cannot be sent again is no answer to a log-in."""
    page = spelt(("AuthenticateResponse", {"token": token}))
    async with (
        answering_etcd(b"", {"Authenticate": page}) as url,
        opened([url], user="me", password="5ecret", prefix=PREFIX) as driver,
    ):
        with pytest.raises(BackendUnavailable, match="no answer of etcd"):
            await driver.read(["leader/x"])
