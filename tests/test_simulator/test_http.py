"""The simulator through real sockets: arguments, tokens, connections that end, injected faults."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from support import aio
from support.botapi import TOKEN

from cluster_lock import clock
from cluster_lock.testing.telegram import CLIENT_HEADER, SENT_HEADER, TERM_HEADER, Fault, TelegramSimulator


class Http:
    """A plain HTTP client of one simulator."""

    def __init__(self, simulator: TelegramSimulator, client: str = "a") -> None:
        self.simulator = simulator
        self.session = aiohttp.ClientSession(headers={CLIENT_HEADER: client})

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def ask(
        self, method: str = "getUpdates", *, token: str = TOKEN, headers: dict[str, str] | None = None, **arguments: Any
    ) -> tuple[int, Any]:
        url = f"{self.simulator.url}/bot{token}/{method}"
        async with self.session.post(url, data=arguments or None, headers=headers) as response:
            if response.content_type != "application/json":
                return response.status, await response.text()
            return response.status, await response.json()

    async def parked(self, **arguments: Any) -> asyncio.Task[tuple[int, Any]]:
        """A long poll that has arrived and waits."""
        before = self.simulator.bot(TOKEN).parked
        task = asyncio.create_task(self.ask(timeout=50, **arguments))
        await aio.until(lambda: self.simulator.bot(TOKEN).parked not in (None, before))
        return task


async def test_arguments_come_in_any_of_the_four_forms() -> None:
    """Query string, form, multipart and JSON mean the same, in GET and POST; the method's case does not matter."""
    async with TelegramSimulator() as simulator, Http(simulator) as http:
        ids = simulator.push_many(42, 3)
        base = f"{simulator.url}/bot{TOKEN}/"
        multipart = aiohttp.FormData({"limit": "2"}, quote_fields=True, default_to_multipart=True)
        requests: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", f"getUpdates?limit=2&offset={ids[0]}", {}),
            ("POST", "GETUPDATES", {"data": {"limit": "2"}}),
            ("POST", f"getupdates?offset={ids[0]}", {"data": multipart}),
            ("POST", "getUpdates", {"json": {"limit": 2, "allowed_updates": ["message"]}}),
            ("POST", f"?method=getUpdates&limit=2&offset={ids[0]}", {}),
        ]
        for method, path, options in requests:
            async with http.session.request(method, base + path, **options) as response:
                found = await response.json()
                assert [update["update_id"] for update in found["result"]] == ids[:2], (path, found)
        assert simulator.bot(42).allowed == {"message"}


@pytest.mark.parametrize(
    ("path", "front", "status", "description"),
    [
        ("/", "cloud", 404, "Not Found"),
        ("/bot42:x", "cloud", 404, "Not Found"),
        ("/bot42:x/testing/getMe", "cloud", 404, "Not Found"),
        ("/bot42:x/noSuchMethod", "cloud", 404, "Not Found: method not found"),
        ("/botnonsense/getMe", "cloud", 404, "Not Found"),
        ("/botnonsense/getMe", "local", 401, "Unauthorized: invalid token specified"),
        ("/bot042:x/getMe", "local", 401, "Unauthorized: invalid token specified"),
        ("/bot99999999999999999999:x/getMe", "local", 401, "Unauthorized: invalid token specified"),
        ("/botabc:x/getMe", "local", 421, "Misdirected Request: unallowed token specified"),
    ],
)
async def test_paths_and_tokens_that_are_wrong(path: str, front: Any, status: int, description: str) -> None:
    """Each is refused with the status and the words of api.telegram.org or of a server of one's own."""
    async with (
        TelegramSimulator(front=front) as simulator,
        Http(simulator) as http,
        http.session.get(simulator.url + path) as response,
    ):
        assert await response.json() == {"ok": False, "error_code": status, "description": description}
        assert response.status == status


async def test_the_test_environment_has_its_own_path() -> None:
    """/bot{token}/test/{method} is another bot than /bot{token}/{method}."""
    async with TelegramSimulator() as simulator, Http(simulator) as http:
        simulator.push("42/test", text="only there")
        assert (await http.ask("getUpdates"))[1]["result"] == []
        assert len((await http.ask("test/getUpdates"))[1]["result"]) == 1


async def test_a_429_says_its_seconds_in_body_and_header() -> None:
    """retry_after is a parameter of the error and a header."""
    async with TelegramSimulator() as simulator, Http(simulator) as http:
        simulator.inject(Fault(retry_after=30))
        async with http.session.get(f"{simulator.url}/bot{TOKEN}/getUpdates") as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "30")
            body = await response.json()
        assert body["parameters"] == {"retry_after": 30}
        assert body["description"] == "Too Many Requests: retry after 30"
        assert (await http.ask())[0] == 200


async def test_a_closed_connection_does_not_free_the_parked_poll() -> None:
    """The query stays parked, acknowledges nothing, and is evicted by the next poll with no conflict to anybody."""
    async with TelegramSimulator(strict=True) as simulator, Http(simulator) as http:
        task = await http.parked()
        task.cancel()
        [poll] = [item.poll for item in simulator.oracle.polls()]
        await aio.until(lambda: poll.end == "disconnected")
        state = simulator.state()["bots"]["42"]
        assert (state["parked"], state["parked_is_connected"]) == ("a", False)
        async with Http(simulator, "b") as other:
            successor = await other.parked()
            [update_id] = simulator.push_many(42, 1)
            assert [update["update_id"] for update in (await successor)[1]["result"]] == [update_id]
        [update] = simulator.oracle.updates()
        assert [delivery.client for delivery in update.delivered] == ["b"]
        assert poll.evicted is not None
        report = simulator.oracle.report()
        assert (report.overlapping_polls, report.conflicts_live) == (0, 0)


async def test_an_answer_to_a_closed_connection_is_not_delivered() -> None:
    """An update that wakes a dead poll goes nowhere and is served again."""
    async with TelegramSimulator() as simulator, Http(simulator) as http:
        task = await http.parked()
        task.cancel()
        [item] = simulator.oracle.polls()
        await aio.until(lambda: item.poll.end == "disconnected")
        [update_id] = simulator.push_many(42, 1)
        await aio.until(lambda: simulator.bot(TOKEN).parked is None)
        assert simulator.oracle.updates()[0].delivered == []
        assert (await http.ask())[1]["result"][0]["update_id"] == update_id


def test_two_live_pollers_are_an_overlap_and_a_live_conflict() -> None:
    """The old one reads its 409 on an open socket, and `strict` makes leaving the context fail."""

    async def main() -> None:
        async with TelegramSimulator(strict=True) as simulator, Http(simulator) as a, Http(simulator, "b") as b:
            old = await a.parked()
            new = await b.parked()
            assert (await old)[0] == 409
            simulator.push(42)
            assert (await new)[0] == 200
            report = simulator.oracle.report()
            assert (report.overlapping_polls, report.conflicts_live) == (1, 1)
            assert report.findings["conflicts_live"][0]["client"] == "a"

    with pytest.raises(AssertionError, match="1 conflicts went to live clients"):
        aio.run(main())


async def test_a_frozen_client_has_no_overlap_and_no_conflict() -> None:
    """What the harness says about a stopped process holds for a poll that the server still has parked."""
    async with TelegramSimulator(strict=True) as simulator, Http(simulator) as a, Http(simulator, "b") as b:
        old = await a.parked()
        simulator.oracle.frozen("a")
        new = await b.parked()
        assert (await old)[0] == 409
        simulator.push(42)
        assert (await new)[0] == 200
        assert simulator.oracle.report().overlapping_polls == 0
        [change] = simulator.oracle.changes(42)
        assert (change.old, change.new) == ("a", "b")
        assert change.gap_ms > 0


async def test_headers_tell_the_term_and_the_moment_of_the_write() -> None:
    """Both are on the poll and on what it delivered and acknowledged; nonsense in them is ignored."""
    async with TelegramSimulator() as simulator, Http(simulator) as http:
        [update_id] = simulator.push_many(42, 1)
        await http.ask(headers={TERM_HEADER: "17", SENT_HEADER: "12.5"})
        await http.ask(headers={TERM_HEADER: "a", SENT_HEADER: "b"}, offset=update_id + 1)
        first, second = (item.poll for item in simulator.oracle.polls())
        assert (first.arguments, first.received) == ({}, 1)
        assert (second.arguments, second.received) == ({"offset": str(update_id + 1)}, 0)
        assert (first.term, first.sent, second.term, second.sent) == (17, 12.5, None, None)
        [update] = simulator.oracle.updates()
        assert update.delivered[0].term == 17
        assert update.acked is not None
        assert update.acked.client == "a"


async def test_bytes_of_a_dead_client_evict_the_new_leader_and_are_counted_apart() -> None:
    """A request that was written before its sender's death and arrives after it is late, and no overlap."""
    async with TelegramSimulator() as simulator, Http(simulator) as a, Http(simulator, "b") as b:
        written = clock.now()
        simulator.oracle.dead("a")
        leader = await b.parked()
        await a.parked(headers={SENT_HEADER: repr(written)})
        assert (await leader)[0] == 409
        report = simulator.oracle.report()
        assert (report.late_arrivals, report.overlapping_polls, report.conflicts_live) == (1, 0, 1)
        assert simulator.oracle.changes() == []


async def test_a_client_without_a_name_is_its_program_and_connection() -> None:
    """Two connections of one program that give no name are two clients."""
    async with TelegramSimulator() as simulator:
        for offset in (1, 2):
            url = f"{simulator.url}/bot{TOKEN}/getUpdates?offset={offset}"
            async with (
                aiohttp.ClientSession(headers={"User-Agent": "bot/1"}) as session,
                session.get(url) as response,
            ):
                assert response.status == 200
        names = {item.poll.client for item in simulator.oracle.polls()}
        assert len(names) == 2
        assert all(name.startswith("bot/1 at 127.0.0.1:") for name in names)


@pytest.mark.parametrize("after_processing", [False, True])
async def test_a_dropped_connection_before_or_after_the_work(after_processing: bool) -> None:
    """After the work the acknowledgement has happened although the answer is lost; before it nothing has."""
    async with TelegramSimulator() as simulator, Http(simulator) as http:
        ids = simulator.push_many(42, 3)
        simulator.inject(Fault("drop", after_processing=after_processing))
        with pytest.raises(aiohttp.ClientError):
            await http.ask(offset=ids[1])
        assert len(simulator.bot(42).queue) == (2 if after_processing else 3)
        assert simulator.oracle.polls()[-1].poll.end in {"dropped", "disconnected"}
        assert simulator.oracle.updates()[1].delivered == []


async def test_a_black_hole_answers_nothing_until_the_client_gives_up() -> None:
    """The request arrives and nothing comes back; the simulator still stops at once."""
    simulator = TelegramSimulator()
    async with simulator, Http(simulator) as http:
        simulator.inject(Fault("black_hole", times=2))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await http.ask()
        swallowed = asyncio.create_task(http.ask())
        await aio.until(lambda: len(simulator.oracle.polls()) == 2)
        await simulator.stop()
        with pytest.raises(aiohttp.ClientError):
            await swallowed


@pytest.mark.parametrize("after_processing", [False, True])
async def test_a_slow_request_or_a_slow_answer(after_processing: bool) -> None:
    """The delay is in the server's time, before or after the work is done."""
    async with TelegramSimulator() as simulator, Http(simulator) as http:
        ids = simulator.push_many(42, 2)
        simulator.inject(Fault("delay", delay=60, after_processing=after_processing))
        task = asyncio.create_task(http.ask(offset=ids[1]))
        await aio.until(lambda: len(simulator.oracle.polls()) == 1)
        assert len(simulator.bot(42).queue) == (1 if after_processing else 2)
        assert not task.done()
        simulator.jump(60)
        assert [update["update_id"] for update in (await task)[1]["result"]] == ids[1:]


async def test_injected_answers_are_sent_as_they_are() -> None:
    """A proxy's HTML page, an error with its words, any body; each for as many requests as it says."""
    async with TelegramSimulator() as simulator, Http(simulator) as http:
        simulator.inject(Fault())
        simulator.inject(Fault(status=500, description="Internal Server Error: restart", times=2))
        simulator.inject(Fault(status=503, html="<b>busy</b>"))
        simulator.inject(Fault(status=200, body="not json"))
        status, page = await http.ask()
        assert (status, "502 Bad Gateway" in page) == (502, True)
        for _ in range(2):
            assert (await http.ask())[1]["description"] == "Internal Server Error: restart"
        assert await http.ask() == (503, "<b>busy</b>")
        async with http.session.get(f"{simulator.url}/bot{TOKEN}/getUpdates") as response:
            assert (response.status, await response.text()) == (200, "not json")
        assert (await http.ask())[0] == 200


async def test_faults_hit_only_what_they_name() -> None:
    """A method, a client and a bot each narrow it down; `times=None` lasts until it is cleared."""
    async with TelegramSimulator() as simulator, Http(simulator) as a, Http(simulator, "b") as b:
        simulator.inject(Fault(status=500, description="x", method=None, client="a", bot=42, times=None))
        simulator.inject(Fault(status=503, description="x", method="sendMessage"))
        for _ in range(3):
            assert (await a.ask("getMe"))[0] == 500
        assert (await b.ask("sendmessage", chat_id=1, text="x"))[0] == 503
        assert (await b.ask("getMe"))[0] == 200
        assert (await a.ask("getMe", token="43:simulator-token-not-real"))[0] == 200
        simulator.faults.clear()
        assert (await a.ask("getMe"))[0] == 200


async def test_an_injected_409_is_no_conflict_of_the_bots() -> None:
    """The harness did that: `strict` and the oracle look at the server's own conflicts."""
    async with TelegramSimulator(strict=True) as simulator, Http(simulator) as http:
        simulator.inject(Fault(status=409, description="Conflict: made up"))
        assert (await http.ask())[0] == 409


async def test_a_jump_of_the_clock_ends_long_polls_and_expires_updates() -> None:
    """24 hours pass in no time for a server that listens on real sockets."""
    async with TelegramSimulator() as simulator, Http(simulator) as http:
        task = await http.parked()
        simulator.jump(50)
        assert (await task)[1]["result"] == []
        before = simulator.unix_time()
        simulator.push(42)
        simulator.jump(86_500)
        assert simulator.unix_time() - before >= 86_500
        assert (await http.ask(offset=3))[1]["result"] == []


async def test_stopping_answers_what_is_still_held() -> None:
    """A parked poll gets an empty list and a held loser a 429, and stop() does not wait for them."""
    simulator = TelegramSimulator()
    async with simulator, Http(simulator) as a, Http(simulator, "b") as b, Http(simulator, "c") as c:
        first, second, third = await a.parked(), await b.parked(), await c.parked()
        assert (await first)[0] == 409
        await simulator.stop()
        assert (await second)[1]["parameters"] == {"retry_after": 5}
        assert (await third)[1]["result"] == []
