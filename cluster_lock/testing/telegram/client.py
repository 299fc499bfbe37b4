"""The simulator's control for other processes: the harness of a demo, and the bots that report what they handle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import aiohttp

from cluster_lock import clock as boot_clock

from .bot_key import BotRef
from .bot_state import ConflictMode, Front, ReseedTo
from .control import PREFIX
from .faults import Fault
from .judge import Change
from .oracle import Report

Json = dict[str, Any]
REQUEST_TIMEOUT = 10.0
RUNS_AT_ONCE = 1000


class SimulatorError(Exception):
    """The simulator refused a verb, with its reason."""


class SimulatorControl:
    """Everything that `TelegramSimulator` and its `oracle` offer, over HTTP; see there for what each does.

    Works as an asynchronous context manager, or until `close`. Raises SimulatorError when the simulator refuses, and
    aiohttp.ClientError or TimeoutError (after 10 s) when it cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self._base = url.rstrip("/") + PREFIX
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def push(
        self,
        bot: BotRef,
        *,
        chat_id: int = 1,
        text: str | None = None,
        kind: str = "message",
        user_id: int | None = None,
        ttl: float | None = None,
    ) -> int | None:
        found = await self._call("push", bot=bot, chat_id=chat_id, text=text, kind=kind, user_id=user_id, ttl=ttl)
        return None if found is None else int(found)

    async def push_many(self, bot: BotRef, count: int, *, chats: Sequence[int] = (1,)) -> list[int]:
        return list(await self._call("push_many", bot=bot, count=count, chats=list(chats)))

    async def push_raw(self, bot: BotRef, payload: Json, *, ttl: float | None = None) -> int | None:
        found = await self._call("push_raw", bot=bot, payload=payload, ttl=ttl)
        return None if found is None else int(found)

    async def traffic_on(
        self, bot: BotRef, *, rate: float, chats: Sequence[int] = (1, 2, 3), seconds: float | None = None
    ) -> None:
        await self._call("traffic_on", bot=bot, rate=rate, chats=list(chats), seconds=seconds)

    async def traffic_off(self, bot: BotRef) -> int:
        return int(await self._call("traffic_off", bot=bot))

    async def inject(self, fault: Fault) -> None:
        await self._call("inject", **asdict(fault))

    async def clear_faults(self) -> None:
        await self._call("clear_faults")

    async def revoke(self, bot: BotRef) -> None:
        await self._call("revoke", bot=bot)

    async def restore(self, bot: BotRef) -> None:
        await self._call("restore", bot=bot)

    async def restarting(self, bot: BotRef) -> None:
        await self._call("restarting", bot=bot)

    async def set_webhook(self, bot: BotRef, url: str) -> None:
        await self._call("set_webhook", bot=bot, url=url)

    async def reseed(self, bot: BotRef, to: ReseedTo = "random", *, now: bool = False) -> None:
        await self._call("reseed", bot=bot, to=to, now=now)

    async def jump(self, seconds: float) -> None:
        await self._call("jump", seconds=seconds)

    async def set_modes(self, *, conflict: ConflictMode | None = None, front: Front | None = None) -> None:
        await self._call("set_modes", conflict=conflict, front=front)

    async def rogue_on(self, bot: BotRef, *, poll_timeout: int = 10, pause: float = 1.0, acks: bool = False) -> None:
        await self._call("rogue_on", bot=bot, poll_timeout=poll_timeout, pause=pause, acks=acks)

    async def rogue_off(self, bot: BotRef) -> None:
        await self._call("rogue_off", bot=bot)

    async def frozen(self, client: str, since: float | None = None) -> None:
        await self._call("frozen", client=client, since=since)

    async def thawed(self, client: str, at: float | None = None) -> None:
        await self._call("thawed", client=client, at=at)

    async def dead(self, client: str, at: float | None = None) -> None:
        await self._call("dead", client=client, at=at)

    async def started(self, client: str, at: float | None = None) -> None:
        await self._call("started", client=client, at=at)

    async def term_ended(self, client: str, term: int, at: float | None = None) -> None:
        await self._call("term_ended", client=client, term=term, at=at)

    async def handled(
        self,
        update_id: int,
        *,
        client: str,
        start: float,
        end: float | None = None,
        outcome: str | None = None,
        term: int | None = None,
        bot: BotRef | None = None,
    ) -> None:
        await self._call(
            "handled",
            update_id=update_id,
            client=client,
            start=start,
            end=end,
            outcome=outcome,
            term=term,
            bot=bot,
        )

    async def handled_many(self, runs: Sequence[Json]) -> None:
        # The simulator takes no body of over a megabyte.
        for first in range(0, len(runs), RUNS_AT_ONCE):
            await self._call("handled_many", runs=list(runs[first : first + RUNS_AT_ONCE]))

    @asynccontextmanager
    async def handling(
        self, update_id: int, *, client: str, term: int | None = None, bot: BotRef | None = None
    ) -> AsyncIterator[None]:
        """Report the run of a handler whose body is the block: its start, and its end unless it is cancelled."""
        start = boot_clock.now()
        await self.handled(update_id, client=client, start=start, term=term, bot=bot)
        outcome = "failed"
        try:
            yield
            outcome = "ok"
        except Exception:
            await self._handled_end(update_id, client, start, outcome, term, bot)
            raise
        await self._handled_end(update_id, client, start, outcome, term, bot)

    async def _handled_end(
        self, update_id: int, client: str, start: float, outcome: str, term: int | None, bot: BotRef | None
    ) -> None:
        await self.handled(
            update_id, client=client, start=start, end=boot_clock.now(), outcome=outcome, term=term, bot=bot
        )

    async def report(
        self, *, bot: BotRef | None = None, drained: bool = True, ignore: Sequence[str] = (), at_most: int = 1000
    ) -> Report:
        return Report(**await self._call("report", bot=bot, drained=drained, ignore=list(ignore), at_most=at_most))

    async def polls(self, bot: BotRef | None = None, *, since: float = 0.0) -> list[Json]:
        """As `Oracle.polls`, each as a plain object with `spans` and `late`."""
        return list(await self._call("polls", bot=bot, since=since))

    async def changes(self, bot: BotRef | None = None, *, ignore: Sequence[str] = ()) -> list[Change]:
        return [Change(**change) for change in await self._call("changes", bot=bot, ignore=list(ignore))]

    async def updates(self, bot: BotRef | None = None) -> list[Json]:
        return list(await self._call("updates", bot=bot))

    async def calls(self, method: str | None = None) -> list[Json]:
        """The bots' latest requests other than getUpdates; `method` picks one kind."""
        return list(await self._call("calls", method=method))

    async def state(self) -> Json:
        return dict(await self._call("state"))

    async def clear(self) -> None:
        """Let the oracle forget its history."""
        await self._call("clear")

    async def _call(self, verb: str, **arguments: Any) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT))
        async with self._session.post(self._base + verb, json=arguments) as response:
            answer = await response.json()
        if not answer["ok"]:
            raise SimulatorError(answer["description"])
        return answer["result"]
