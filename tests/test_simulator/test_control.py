"""The simulator as a process of its own, and everything that other processes can tell it."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support import aio
from support.botapi import TOKEN

from cluster_lock import clock
from cluster_lock.testing.telegram import Fault, Oracle, SimulatorControl, SimulatorError, TelegramSimulator
from cluster_lock.testing.telegram.__main__ import main as simulator_program

CHECKOUT = Path(__file__).parents[2]


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m cluster_lock.testing.telegram`; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cluster_lock.testing.telegram", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def url_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return str(json.loads(await process.stdout.readline())["url"])


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_program_says_its_url_serves_and_stops_on_a_signal(number: signal.Signals) -> None:
    """One JSON line when it is ready; exit 0 without a word on stderr, also while polls are parked."""
    async with program("--port", "0") as process:
        url = await url_of(process)
        async with SimulatorControl(url) as control:
            await control.rogue_on(42, poll_timeout=50)

            async def parked() -> bool:
                return bool((await control.state())["bots"]["42"]["parked"] == "rogue")

            await aio.until(parked)
        process.send_signal(number)
        rest, errors = await process.communicate()
        assert (process.returncode, rest, errors) == (0, b"", b"")


@pytest.mark.process
async def test_the_program_says_when_its_port_is_taken() -> None:
    """One clear line on stderr and exit 1, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with program("--port", str(port)) as process:
            output, errors = await process.communicate()
            assert (process.returncode, output) == (1, b"")
            assert errors.decode().startswith(f"cannot listen on 127.0.0.1:{port}: ")
            assert len(errors.splitlines()) == 1


def test_other_processes_can_do_what_the_test_itself_can() -> None:
    """Every verb of SimulatorControl takes the arguments of the method behind it, with the same defaults."""

    def shape(method: Any) -> dict[str, Any]:
        parameters = inspect.signature(method).parameters
        return {name: parameter.default for name, parameter in parameters.items() if name != "self"}

    own = {"close", "clear_faults", "handling"}
    checked = 0
    for name, method in inspect.getmembers(SimulatorControl, inspect.isfunction):
        if not name.startswith("_") and name not in own:
            behind = getattr(TelegramSimulator, name, None) or getattr(Oracle, name)
            assert shape(method) == shape(behind), name
            checked += 1
    assert checked >= 28


async def test_a_whole_story_over_http() -> None:
    """Push, poll, report, judge: through the control alone."""
    async with TelegramSimulator() as simulator, SimulatorControl(simulator.url) as control:
        first = await control.push(42, chat_id=5, text="hello")
        assert first is not None
        second = await control.push_raw(42, {"poll": {"id": "1"}})
        assert second is not None
        [third] = await control.push_many(42, 1, chats=[6])
        async with control.handling(first, client="a", term=9):
            pass
        with pytest.raises(RuntimeError):
            async with control.handling(second, client="a"):
                raise RuntimeError
        with pytest.raises(asyncio.CancelledError):
            async with control.handling(third, client="a", bot=42):
                raise asyncio.CancelledError
        report = await control.report(drained=False)
        assert (report.updates_sent, report.updates_handled, report.pending) == (3, 2, 3)
        told = await control.updates(42)
        assert [(run["term"], run["outcome"]) for update in told for run in update["runs"]] == [
            (9, "ok"),
            (None, "failed"),
            (None, None),
        ]
        assert told[0]["runs"][0]["start"] <= told[0]["runs"][0]["end"] <= clock.now()
        assert (await control.report()).lost == 1
        await control.clear()
        assert (await control.report()).updates_sent == 0


async def test_trouble_over_http() -> None:
    """Faults, webhook, revocation, restart, modes, reseed and jump reach the server."""
    async with TelegramSimulator() as simulator, SimulatorControl(simulator.url) as control:
        await control.inject(Fault("drop", times=None, client="a"))
        await control.inject(Fault(retry_after=3))
        assert (await control.state())["faults_waiting"] == 2
        await control.clear_faults()
        await control.set_webhook(42, "https://example.org/hook")
        await control.revoke(TOKEN)
        await control.set_modes(conflict="sticky")
        [update_id] = await control.push_many(42, 1)
        await control.reseed(42, "lower", now=True)
        state = await control.state()
        assert state["faults_waiting"] == 0
        assert state["modes"] == {"conflict": "sticky", "front": "cloud"}
        bot = state["bots"]["42"]
        assert (bot["webhook"], bot["revoked"]) == ("https://example.org/hook", True)
        assert 0 < bot["tail"] < update_id
        await control.restore(42)
        await control.restarting(42)
        bot = (await control.state())["bots"]["42"]
        assert (bot["revoked"], bot["closing"]) == (False, True)
        before = simulator.clock.now()
        await control.jump(1000)
        assert simulator.clock.now() >= before + 1000
        assert TOKEN not in json.dumps(await control.state())


async def test_lives_of_clients_over_http() -> None:
    """What the harness says about processes changes the verdict, the polls and the changes."""
    async with TelegramSimulator() as simulator, SimulatorControl(simulator.url) as control:
        await control.rogue_on(42, poll_timeout=50)
        await aio.until(lambda: simulator.bot(42).parked is not None)
        await control.frozen("rogue")
        await control.thawed("rogue")
        await control.dead("rogue")
        await control.started("rogue")
        await control.term_ended("rogue", 3)
        [poll] = await control.polls(42)
        assert (poll["client"], poll["late"], poll["end"]) == ("rogue", False, "open")
        assert len(poll["spans"]) == 2
        assert await control.changes(42) == []
        assert await control.calls("getme") == []
        await control.rogue_off(42)


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        ("nonsense", {}, "no such verb"),
        ("push", {}, "missing a required argument: 'bot'"),
        ("push", {"bot": 42, "colour": "red"}, "colour"),
        ("push", {"bot": "nobody"}, "a bot is named by"),
        ("push", {"bot": 42, "kind": "nonsense"}, "no builder for updates of kind 'nonsense'"),
        ("push_raw", {"bot": 42, "payload": {"a": 1, "b": 2}}, "exactly one kind"),
        ("inject", {"action": "explode"}, "no such action: 'explode'"),
        ("inject", {"times": 0}, "at least one request"),
        ("inject", {"bot": "nobody"}, "a bot is named by"),
        ("jump", {"seconds": -1}, "cannot jump by -1"),
        ("handled", {"update_id": 5, "client": "a", "start": 1.0}, "0 bots have an update 5"),
        ("traffic_on", {"bot": 42, "rate": 0}, "no traffic"),
    ],
)
async def test_verbs_that_make_no_sense_are_refused(verb: str, arguments: dict[str, Any], words: str) -> None:
    """The caller gets a sentence that says what is wrong, and no token is in it."""
    async with TelegramSimulator() as simulator, SimulatorControl(simulator.url) as control:
        with pytest.raises(SimulatorError) as caught:
            await control._call(verb, **arguments)
        assert words in str(caught.value)


async def test_a_token_is_not_repeated_in_an_error() -> None:
    """A reference that names no bot may hold a secret."""
    async with TelegramSimulator() as simulator, SimulatorControl(simulator.url) as control:
        with pytest.raises(SimulatorError) as caught:
            await control.push("x42:simulator-token-not-real")
        assert "token-not-real" not in str(caught.value)


async def test_the_verbs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Who asks for help finds each verb with its arguments, over HTTP and on the command line."""
    async with TelegramSimulator() as simulator, SimulatorControl(simulator.url) as control:
        found: dict[str, str] = await control._call("help")
    assert found["push"].startswith("(bot, chat_id=1, text=null, ")
    assert {"revoke", "inject", "report", "help"} <= found.keys()
    with pytest.raises(SystemExit):
        simulator_program(["--help"])
    said = capsys.readouterr().out
    assert all(f"  {verb} {text}" in said for verb, text in found.items())
