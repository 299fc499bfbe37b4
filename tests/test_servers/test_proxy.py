"""The proxy does to real requests what it says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from support.aio import run
from support.proxy import Proxy

from cluster_lock.testing.servers import ConsulServer

pytestmark = pytest.mark.consul

_Put = Callable[[str, str], Coroutine[Any, Any, bool]]


def through_proxy(server: ConsulServer, test: Callable[[Proxy, _Put], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a proxy in front of the server and a client that writes keys through it."""

    async def main() -> None:
        async with (
            Proxy(server.host, server.http_port) as proxy,
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=1), base_url=f"http://127.0.0.1:{proxy.port}"
            ) as http,
        ):

            async def put(key: str, value: str) -> bool:
                async with http.put(f"/v1/kv/{key}", data=value) as answer:
                    return bool(json.loads(await answer.read()))

            await test(proxy, put)

    run(main())


def test_passes_everything_on(consul_server: ConsulServer) -> None:
    """Without orders the proxy is a wire."""

    async def test(proxy: Proxy, put: _Put) -> None:
        assert await put("proxy/plain", "x")
        assert consul_server.value("proxy/plain") == b"x"

    through_proxy(consul_server, test)


def test_delay_makes_requests_late(consul_server: ConsulServer) -> None:
    """A request takes at least the delay of its way there and back."""

    async def test(proxy: Proxy, put: _Put) -> None:
        proxy.delay = 0.1
        before = time.monotonic()
        assert await put("proxy/late", "x")
        assert time.monotonic() - before >= 0.2

    through_proxy(consul_server, test)


def test_black_hole_keeps_requests_until_healed(consul_server: ConsulServer) -> None:
    """In a black hole a request arrives nowhere; when it is healed the bytes on the way arrive."""

    async def test(proxy: Proxy, put: _Put) -> None:
        assert await put("proxy/hole", "1")
        proxy.black_hole()
        waiting = asyncio.create_task(put("proxy/hole", "2"))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        assert consul_server.value("proxy/hole") == b"1"
        proxy.heal()
        assert await waiting
        assert consul_server.value("proxy/hole") == b"2"

    through_proxy(consul_server, test)


def test_cut_and_refuse_break_connections(consul_server: ConsulServer) -> None:
    """A refusing proxy resets what is open and lets nobody in; accepting again works on the same port."""

    async def test(proxy: Proxy, put: _Put) -> None:
        assert await put("proxy/cut", "1")
        port = proxy.port
        await proxy.refuse()
        assert proxy.connections == 0
        with pytest.raises(aiohttp.ClientConnectorError):
            await put("proxy/cut", "2")
        await proxy.accept()
        assert proxy.port == port
        assert await put("proxy/cut", "3")

    through_proxy(consul_server, test)


def test_held_request_arrives_after_its_client_gave_up(consul_server: ConsulServer) -> None:
    """A held request changes nothing until it is delivered, and then it does, although nobody waits for it."""

    async def test(proxy: Proxy, put: _Put) -> None:
        assert await put("proxy/held", "before")
        held = proxy.hold(b"PUT /v1/kv/proxy/held")
        with pytest.raises(TimeoutError):
            await put("proxy/held", "late")
        assert held.caught.is_set()
        assert consul_server.value("proxy/held") == b"before"
        assert b"200 OK" in await held.deliver()
        assert consul_server.value("proxy/held") == b"late"

    through_proxy(consul_server, test)


def test_held_request_is_answered_when_its_client_waits(consul_server: ConsulServer) -> None:
    """A client that still waits gets the reply of its held request."""

    async def test(proxy: Proxy, put: _Put) -> None:
        held = proxy.hold(b"PUT /v1/kv/proxy/wait")
        waiting = asyncio.create_task(put("proxy/wait", "x"))
        await held.caught.wait()
        await held.deliver()
        assert await waiting

    through_proxy(consul_server, test)


def test_dropped_reply_leaves_the_change_done(consul_server: ConsulServer) -> None:
    """The request whose reply is dropped has changed the server, and its client hears nothing but the cut."""

    async def test(proxy: Proxy, put: _Put) -> None:
        lost = proxy.drop_reply(b"PUT /v1/kv/proxy/lost", hang=True)
        with pytest.raises(TimeoutError):
            await put("proxy/lost", "x")
        assert lost.answered.is_set()
        assert consul_server.value("proxy/lost") == b"x"

    through_proxy(consul_server, test)


def test_captured_request_can_be_sent_once_more(consul_server: ConsulServer) -> None:
    """The copy of a request does to the server what the request did."""

    async def test(proxy: Proxy, put: _Put) -> None:
        captured = proxy.capture(b"PUT /v1/kv/proxy/copy")
        assert await put("proxy/copy", "old")
        assert await put("proxy/copy", "new")
        assert b"200 OK" in await captured.replay()
        assert consul_server.value("proxy/copy") == b"old"

    through_proxy(consul_server, test)
