"""The pages over real sockets: what they answer, and what they refuse."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.aio import run, until
from support.health import LOCK, TIMING, leader_board, poller, standby_board
from support.http import Answer, Stream, fetch

from cluster_lock import clock
from cluster_lock.errors import ConfigError
from cluster_lock.health import Board, connections, open_health
from cluster_lock.health import server as server_module
from cluster_lock.health.connections import CONNECTIONS
from cluster_lock.health.events import WATCHERS
from cluster_lock.health.hosts import Hosts
from cluster_lock.health.server import HealthServer
from cluster_lock.host.listen_address import ListenAddress, listen_address
from cluster_lock.observer import Ending
from cluster_lock.values import EndCode, EndReason

ANY = "127.0.0.1:0"
FIELDS = [
    "status",
    "pid",
    "uptime_seconds",
    "version",
    "role",
    "leader",
    "term",
    "lease_remaining",
    "last_poll_age",
    "conflicts_60s",
    "last_error",
    "pending_updates",
    "window_full",
    "confirmed_early",
    "early_running",
]
SECRET = "123456789:AAexampleSecretOfABotxxxxxxxxxxxxxx"


async def ask(board: Board, path: str, method: str = "GET", **headers: str) -> Answer:
    async with open_health(board, ANY) as url:
        assert url is not None
        return await fetch(url, path, method, **headers)


def test_health_has_exactly_these_fields() -> None:
    """/health answers the agreed fields, in their order, with what the board knows."""
    board = leader_board()
    full = {"pending": 7, "window_full": True, "confirmed_early": 4, "early_running": 1}
    board.pollers.tell([poller(conflicts_60s=2, last_error="HTTP 502", **full)])
    answer = run(ask(board, "/health"))
    assert (answer.status, list(answer.json)) == (200, FIELDS)
    wanted = {"status": "running", "pid": os.getpid(), "role": "leader", "leader": "web-1", "term": 17}
    assert {name: answer.json[name] for name in wanted} == wanted
    assert 5 < answer.json["lease_remaining"] <= 12
    assert 1 <= answer.json["last_poll_age"] < 5
    assert [answer.json[name] for name in FIELDS[9:]] == [2, "HTTP 502", 7, True, 4, 1]


async def test_probes_tell_why() -> None:
    """A probe that fails answers 503 and the reason in words; /health of the same process too."""
    board = standby_board()
    board.lease_lost("the lease was last renewed 14.0 s ago (ttl 15 s)")
    async with open_health(board, ANY) as url:
        assert url is not None
        ready, live = await fetch(url, "/readyz"), await fetch(url, "/livez")
        assert (ready.status, live.status, live.text) == (503, 200, "ok\n")
        assert "14.0 s ago" in ready.text
        board.lease_granted(TIMING, clock.now() + 12)
        assert (await fetch(url, "/readyz")).status == 200
        board.pollers.tell([poller(deaf=True)])
        assert (await fetch(url, "/livez")).status == 503
        assert (await fetch(url, "/health")).status == 503


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
@pytest.mark.parametrize("path", ["/", "/health", "/events", "/nothing"])
def test_nothing_can_be_changed(method: str, path: str) -> None:
    """Every verb but GET and HEAD is refused everywhere."""
    answer = run(ask(leader_board(), path, method))
    assert answer.status in (400, 405)
    if answer.status == 405:
        assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/health", "/livez", "/readyz", "/metrics", "/events"])
def test_head_has_no_body(path: str) -> None:
    """HEAD answers the same without a body, and at once, also where a GET would never end."""
    answer = run(ask(leader_board(), path, "HEAD"))
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9876", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:1", 200),
        ("127.8.8.8", 200),
        ("[::1]:9876", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("10.0.0.5", 421),
        ("0x7f.1", 421),
        ("localhost@evil.example", 421),
        ("[::1", 421),
        ("", 400),
    ],
)
def test_a_rebound_name_gets_nothing(host: str, status: int) -> None:
    """A name that somebody lets point to loopback is refused; what really names loopback is answered."""
    for path in ("/health",) if status == 200 else ("/", "/health", "/events"):
        answer = run(ask(leader_board(), path, Host=host))
        assert answer.status == status
        assert (b"web-1" in answer.body) is (status == 200)
        assert (b"CLUSTER_LOCK_HEALTH" in answer.body) is (status == 421)


@pytest.mark.parametrize(
    ("bound", "host", "allowed"),
    [
        ("0.0.0.0", "10.0.0.5:9876", True),
        ("0.0.0.0", "bot-1:9876", True),
        ("0.0.0.0", socket.gethostname(), True),
        ("0.0.0.0", "bot-1.example.org", False),
        ("0.0.0.0", "0x7f000001", False),
        ("0.0.0.0", "2130706433", False),
        ("10.0.0.5", "10.0.0.5:1", True),
        ("10.0.0.5", "10.0.0.6", False),
        ("bot-1.example.org", "bot-1.example.org:9876", True),
        ("bot-1.example.org", "BOT-1.example.org.", True),
        ("bot-1.example.org", "bot-2.example.org", False),
        ("::", "[fd00::5]:9876", True),
        ("127.0.0.1", "bot-1", False),
        ("::1", socket.gethostname(), False),
    ],
)
def test_names_beyond_loopback(bound: str, host: str, allowed: bool) -> None:
    """On an address of a network: that address, its name as the setting says it, names without a dot; on loopback
    nothing else."""
    assert Hosts(bound).allow(host) is allowed


def test_other_sites_get_nothing() -> None:
    """What a browser fetches for another site's page is refused, events above all; a link to the page works."""
    board = leader_board()
    for path in ("/health", "/events", "/metrics"):
        assert run(ask(board, path, Sec_Fetch_Site="cross-site")).status == 403
    assert run(ask(board, "/health", Sec_Fetch_Site="same-origin")).status == 200
    assert run(ask(board, "/", Sec_Fetch_Site="cross-site")).status == 200


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/nothing", "/events"])
def test_every_answer_is_closed_off(path: str) -> None:
    """No answer is cached, framed, sniffed or allowed to load anything that is not in it."""
    headers = run(ask(leader_board(), path, "HEAD")).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["server"] == "cluster-lock"
    assert "access-control-allow-origin" not in headers


async def test_events_tell_a_transition_at_once() -> None:
    """A watcher hears of a hand-over in the moment, not with the next second."""
    board = leader_board()
    async with open_health(board, ANY) as url:
        assert url is not None
        async with Stream(url, "/events") as stream:
            assert "text/event-stream" in stream.head
            assert (await stream.event())["locks"][0]["role"] == "leader"
            board.term_ended(LOCK, EndReason("stepped down: SIGTERM", EndCode.STOPPED), Ending.HANDED_OVER, "web-2")
            event = await stream.event()
            assert event["role"] == "standby"
            (term,) = event["locks"][0]["history"]
            assert (term["ending"], term["reason"]) == ("handed over to web-2", "stepped down: SIGTERM")


async def test_watchers_are_bounded() -> None:
    """One watcher too many is told to come again; when one goes there is room; closing ends all streams at once."""
    board = leader_board()
    server = HealthServer(board, ListenAddress("127.0.0.1", 0))
    await server.start()
    streams = [Stream(server.url, "/events") for _ in range(WATCHERS)]
    for stream in streams:
        await stream.__aenter__()
        assert stream.status == 200
    assert (await fetch(server.url, "/events")).status == 503
    await streams.pop().__aexit__()

    async def has_room() -> bool:
        async with Stream(server.url, "/events") as stream:
            return stream.status == 200

    await until(has_room)
    before = clock.now()
    await server.close()
    assert clock.now() - before < 10
    for stream in streams:
        with pytest.raises(asyncio.IncompleteReadError):
            while True:
                await stream.event()
        await stream.__aexit__()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    "said", [b"", b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: "], ids=["nothing", "half a header"]
)
def test_a_flood_of_connections_keeps_no_probe_out(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """While a thousand connect and ask for nothing, few are kept, each probe is answered, and a watcher sees on: it is
    the oldest that has to go."""
    monkeypatch.setattr(connections, "HEADER", 60.0)

    async def main() -> None:
        async with open_health(leader_board(), ANY) as url:
            assert url is not None
            async with Stream(url, "/events") as stream:
                await stream.event()
                ended: list[asyncio.Task[bytes]] = []
                writers: list[asyncio.StreamWriter] = []
                for _ in range(10):
                    for reader, writer in await asyncio.gather(*(connected(url, said) for _ in range(100))):
                        ended.append(asyncio.ensure_future(until_end(reader)))
                        writers.append(writer)
                    before = clock.now()
                    assert (await fetch(url, "/livez")).status == 200
                    assert clock.now() - before < 10
                await until(lambda: sum(task.done() for task in ended) >= len(ended) - CONNECTIONS)
                assert (await stream.event())["role"] == "leader"
                for writer in writers:
                    writer.close()
                await asyncio.wait(ended)

    with many_descriptors():
        run(main())


def test_a_probe_in_the_middle_of_a_crowd_is_answered() -> None:
    """Hundreds that connect in the same moment as a probe do not push it out before it is read."""

    async def main() -> None:
        async with open_health(leader_board(), ANY) as url:
            assert url is not None
            idle = [asyncio.ensure_future(connected(url, b"")) for _ in range(200)]
            probe = asyncio.ensure_future(fetch(url, "/livez"))
            idle += [asyncio.ensure_future(connected(url, b"")) for _ in range(200)]
            assert (await probe).status == 200
            for _, writer in await asyncio.gather(*idle):
                writer.close()
            assert (await fetch(url, "/livez")).status == 200  # so all that came before it were let in

    with many_descriptors():
        run(main())


async def test_a_header_has_a_time_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who dribbles a header, at first or after an answer, is cut off; who has asked in time and waits is not."""
    monkeypatch.setattr(connections, "HEADER", 0.5)
    async with open_health(leader_board(), ANY) as url:
        assert url is not None
        request = f"GET /livez HTTP/1.1\r\nHost: 127.0.0.1:{port_of(url)}\r\n".encode()
        async with Stream(url, "/events") as stream:
            await stream.event()
            for first in (b"", request + b"\r\n"):
                reader, writer = await connected(url, first)
                if first:
                    await reader.readuntil(b"ok\n")
                ended = asyncio.ensure_future(until_end(reader))
                before = clock.now()
                writer.write(request)
                while not ended.done():
                    writer.write(b"X-A: a\r\n")
                    await asyncio.wait([ended], timeout=0.05)
                assert 0.4 < clock.now() - before < 5
                assert await ended == b""
                writer.close()
            assert (await stream.event())["role"] == "leader"


async def connected(url: str, said: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
    writer.write(said)
    return reader, writer


async def until_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


@contextmanager
def many_descriptors() -> Iterator[None]:
    """This process is both ends of each connection."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


async def test_secrets_and_markup_are_not_shown() -> None:
    """A token that slips into an error is blotted out on every page, and markup from the store stays text."""
    board = leader_board("<script>alert(1)</script>", secrets=["hunter2-pass"])
    board.pollers.tell([poller(last_error=f"POST /bot{SECRET}/getUpdates failed", waiting=f"because of {SECRET}")])
    board.lease_unsure("login hunter2-pass refused by https://user:pa55@host/")
    board.step_down_began(LOCK, f"asked with {SECRET}", "web-2")
    board.term_ended(LOCK, EndReason(f"asked with {SECRET}", EndCode.STEP_DOWN), Ending.RELEASED)
    async with open_health(board, ANY) as url:
        assert url is not None
        pages = [(await fetch(url, path)).text for path in ("/", "/health", "/readyz", "/livez", "/metrics")]
        async with Stream(url, "/events") as stream:
            pages.append(json.dumps(await stream.event()))
        for text in pages:
            for secret in (SECRET, SECRET.partition(":")[2], "hunter2", "pa55"):
                assert secret not in text
        assert "<script>alert" not in pages[0]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_chosen_port_that_is_taken_is_an_error(taken: int) -> None:
    """Who chose an address gets it or a sentence that names it, with the exit code of a wrong configuration."""
    with pytest.raises(ConfigError, match=f"health: 127.0.0.1:{taken} is taken") as refused:
        run(ask_at(f"127.0.0.1:{taken}"))
    assert refused.value.exit_code == 78


async def test_the_default_moves_on(taken: int) -> None:
    """The default address takes the next free port when another instance has it, and says which."""
    async with HealthServer(leader_board(), ListenAddress("127.0.0.1", taken, may_move=True)) as server:
        assert taken < server.address.port < taken + 100
        assert (await fetch(server.url, "/livez")).status == 200


async def test_the_default_is_no_reason_not_to_work(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """When every port from the default one on is taken, any free one will do."""
    monkeypatch.setattr(server_module, "TRIES", 1)
    async with HealthServer(leader_board(), ListenAddress("127.0.0.1", taken, may_move=True)) as server:
        assert server.address.port != taken
        assert (await fetch(server.url, "/livez")).status == 200


async def ask_at(setting: str) -> None:
    async with open_health(leader_board(), setting):
        pass


def test_an_address_that_is_not_ours_is_an_error() -> None:
    """An address that this host does not have is told, not retried."""
    with pytest.raises(ConfigError, match=r"health: 203\.0\.113\.9:9999 cannot be had"):
        run(ask_at("203.0.113.9:9999"))


@pytest.mark.parametrize(("setting", "warned"), [("0.0.0.0:0", True), ("[::]:0", True), ("127.0.0.1:0", False)])
def test_a_page_for_everybody_is_told(caplog: pytest.LogCaptureFixture, setting: str, warned: bool) -> None:
    """Anybody who opens the page to the network reads in the log what is seen there, and by whom."""
    run(ask_at(setting))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == warned
    assert all("without a login" in text and "firewall" in text for text in warnings)


async def test_off_is_off() -> None:
    """`off` serves nothing."""
    async with open_health(leader_board(), "off") as url:
        assert url is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:9876", ListenAddress("127.0.0.1", 9876, may_move=True)),
        ("9876", ListenAddress("127.0.0.1", 9876, may_move=True)),
        ("0.0.0.0:9876", ListenAddress("0.0.0.0", 9876)),
        ("[::]:80", ListenAddress("::", 80)),
        ("localhost:0", ListenAddress("localhost", 0)),
        (" OFF ", None),
    ],
)
def test_addresses(text: str, found: ListenAddress | None) -> None:
    """What may be written for `health`, and that only the default may move."""
    assert listen_address(text) == found


@pytest.mark.parametrize("text", ["", "host", "host:", ":", "1.2.3.4:99999", "a b:1", "http://x:1", "::1:80", "on"])
def test_wrong_addresses(text: str) -> None:
    """What is no address is refused with what it should be."""
    with pytest.raises(ValueError, match="HOST:PORT"):
        listen_address(text)


def test_requests_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a probe every second nor a scan of the port leaves a line."""
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with open_health(leader_board(), ANY) as url:
            assert url is not None
            assert (await fetch(url, "/livez")).status == 200
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
            assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.0 400")
            writer.close()

    run(main())
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["health page"]
