"""A release of aiogram, aiohttp or asyncio that does otherwise than is known here ends loudly, and polls nothing that
could not be reset. Each change is made in a process of its own, in which the library is another one."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest
from support.nursery import Nursery

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("nursery 0")]

# Born with aiogram's imports done, and of ours none.
ANEW = """
import sys
for name in list(sys.modules):
    if name.startswith(("cluster_lock", "support", "bot")):
        del sys.modules[name]
"""

POLLS = """
import asyncio, logging, socket, struct
logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import Message
from support.leadership_double import TermDouble
from support.polling import dispatcher_with, Handled, until
from cluster_lock.aiogram import Poller, running
from cluster_lock.aiogram.connection import Borrowed
from cluster_lock.telegram.errors import RequestUnguarded
from cluster_lock.testing.telegram import TelegramSimulator

guarded = []
made = Borrowed.__init__
def spy(self, transport, time_left):
    made(self, transport, time_left)
    guarded.append(transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
Borrowed.__init__ = spy

async def main():
    async with TelegramSimulator() as simulator:
        bot = Bot("42:TOKEN", session=AiohttpSession(api=TelegramAPIServer.from_base(simulator.url)))
        if USED:
            await bot.get_me()
        handled = Handled()
        poller = Poller(dispatcher_with(simulator, handled), bot)
        double = TermDouble()
        try:
            await running._first_look(bot)
        except RequestUnguarded as error:
            print("REFUSED", len(simulator.oracle.polls()), error)
        else:
            guarded.clear()
            double.begin(poller.run)
            simulator.push(42)
            await until(lambda: handled.ids or double.work.done())
            is_guarded = guarded and all(struct.unpack("ii", linger) == (1, 0) for linger in guarded)
            print("GUARDED" if is_guarded and not double.work.done() else "LOST")
            await double.lose("the test is over")
        await poller.close()
        await bot.session.close()

asyncio.run(main())
"""


def polled(change: str, used: bool, nursery: Nursery, folder: Path) -> str:
    """The last line that a process prints in which `change` was made before anything of ours was imported."""
    program, log = folder / "program.py", folder / "log"
    program.write_text(f"{ANEW}\nUSED = {used}\n{textwrap.dedent(change)}\n{POLLS}")
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    nursery.start([str(program)], environ, log=log, folder=folder).wait(230)
    said = log.read_text()
    lines = [line for line in said.splitlines() if line.startswith(("REFUSED", "GUARDED", "LOST"))]
    return lines[-1] if lines else said


def renamed(module: str, *pairs: tuple[str, str]) -> str:
    """`module` as its next release might be."""
    return f"""
import {module} as changed
source = open(changed.__file__).read()
for old, new in {pairs!r}:
    assert old in source, old
    source = source.replace(old, new)
exec(compile(source, changed.__file__, "exec"), changed.__dict__)
"""


AIOGRAM = "aiogram.client.session.aiohttp"

PRIVATE = "self._session", "_connector_type", "_connector_init", "_should_reset_connector", "_proxy"

LOUD = {
    "create_session": renamed(AIOGRAM, ("create_session", "get_client")),
    "connect": """
        import aiohttp, aiohttp.client, aiohttp.connector
        aiohttp.connector.BaseConnector.lease = aiohttp.connector.BaseConnector.connect
        source = open(aiohttp.client.__file__).read()
        assert "connector.connect(" in source
        exec(compile(source.replace("connector.connect(", "connector.lease("), aiohttp.client.__file__, "exec"),
             aiohttp.client.__dict__)
        aiohttp.ClientSession = aiohttp.client.ClientSession
        import aiogram.client.session.aiohttp
        aiogram.client.session.aiohttp.ClientSession = aiohttp.client.ClientSession
    """,
    "no socket": """
        import asyncio.selector_events as events
        shown = events._SelectorTransport.get_extra_info
        events._SelectorTransport.get_extra_info = (
            lambda self, name, default=None: None if name == "socket" else shown(self, name, default)
        )
    """,
}


def test_private_names_of_aiogram_are_nothing_to_us(nursery: Nursery, tmp_path: Path) -> None:
    """Whatever aiogram calls its own, each getUpdates is on a connection that is known, also on a session in use."""
    change = renamed(AIOGRAM, *((name, f"{name}_of_tomorrow") for name in PRIVATE))
    assert polled(change, used=True, nursery=nursery, folder=tmp_path).startswith("GUARDED")


@pytest.mark.parametrize("change", LOUD)
def test_a_connection_that_is_not_known_is_never_polled_on(change: str, nursery: Nursery, tmp_path: Path) -> None:
    """What the guard relies on is looked at with a request that is no getUpdates, and none is sent if it fails."""
    line = polled(LOUD[change], used=False, nursery=nursery, folder=tmp_path)
    assert line.startswith("REFUSED 0 "), line
