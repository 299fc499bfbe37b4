"""Requests to Telegram that can be aborted, over connections of the bot's own session.

What a process wrote may arrive when the process is long dead: 6 s later, seen, after a link was down. A getUpdates that
arrives then takes the new leader's place. So its connection is reset and not closed (SO_LINGER 0: the kernel drops what
was not delivered, also when the process dies), and the kernel itself gives up on it at the deadline of its lease
(TCP_USER_TIMEOUT, Linux).

The session stays as its owner made it. Its connections are used, one for each request, and given back as they were; so
its proxy, certificates, addresses and limits count here too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.session.base import BaseSession
from aiogram.exceptions import TelegramAPIError, TelegramNetworkError
from aiogram.methods import TelegramMethod
from aiogram.types import Update
from aiohttp import ClientConnectionError, ClientError, ClientSession
from aiohttp.connector import Connection

from cluster_lock.errors import LockLost
from cluster_lock.telegram.errors import RequestUnguarded

from .connection import OneConnection

Raw = dict[str, Any]
Read = Callable[[list[Raw]], list[Update]]


class GuardedRequest:
    """A request over the connections of `session` that must not outlive its lease.

    `check` is called between the connecting, which may take seconds, and the writing; it raises if the request must not
    be sent any more. `time_left`: seconds for which the kernel may try to deliver it. `fresh`: use no connection that
    was used before, it may be the one that is broken. `read` makes what a getUpdates returns out of the JSON of its
    updates; by default aiogram does. Raises RequestUnguarded if `session` makes its requests in a way of its own.
    """

    def __init__(
        self,
        session: BaseSession,
        check: Callable[[], None],
        time_left: Callable[[], float],
        *,
        fresh: bool = False,
        read: Read | None = None,
    ) -> None:
        self._session = followed(session)
        self._check, self._time_left, self._fresh, self._read = check, time_left, fresh, read
        self._under_way: set[OneConnection] = set()
        """One, unless a middleware sends the request several times at once."""
        self._aborted = False

    @property
    def connections(self) -> list[Connection]:
        """Those over which an answer is awaited."""
        return [one.connection for one in self._under_way if one.connection is not None]

    def abort(self) -> None:
        """Reset the connection while the answer is awaited, and write nothing any more."""
        self._aborted = True
        for one in self._under_way:
            one.abort()

    async def ask(self, bot: Bot, method: TelegramMethod[Any], timeout: int | None = None) -> Any:
        """What the session answers to `method`, through its middlewares. `timeout` in seconds, by default its own.

        Raises RequestUnguarded, without having sent it, if it could not be reset; LockLost after an abort; and whatever
        `check`, aiogram and the middlewares raise.
        """
        return await self._session.middleware.wrap_middlewares(self.send, timeout=timeout)(bot, method)

    async def send(self, bot: Bot, method: TelegramMethod[Any], timeout: int | None = None) -> Any:
        """The same without middlewares: what `make_request` is for the session."""
        session = self._session
        url = session.api.api_url(token=bot.token, method=method.__api_method__)
        form = session.build_form_data(bot=bot, method=method)
        limit: Any = session.timeout if timeout is None else timeout
        try:
            # Most redirects make a GET of it, without its arguments.
            async with (
                self._client() as client,
                client.post(url, data=form, timeout=limit, allow_redirects=False) as got,
            ):
                status, text = got.status, await got.text()
        except TimeoutError as error:
            raise TelegramNetworkError(method=method, message="Request timeout error") from error
        except ClientError as error:
            raise TelegramNetworkError(method=method, message=f"{type(error).__name__}: {error}") from error
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            raise TelegramAPIError(method=method, message=f"HTTP {status}: a redirect, which is not followed")
        if self._read is not None and status == HTTPStatus.OK:
            updates = updates_in(session, text)
            if updates is not None:
                return self._read(updates)
        return session.check_response(bot=bot, method=method, status_code=status, content=text).result

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[ClientSession]:
        """The session's HTTP client, for one request over a connection that is known. What a client does not show, a
        `proxy` or `middlewares` that a session of one's own gave it, does not count."""
        theirs = await self._session.create_session()
        if theirs.connector is None:
            raise ClientConnectionError("the session is closed")
        one = OneConnection(theirs.connector, self._may_write, self._time_left, fresh=self._fresh)
        self._under_way.add(one)
        try:
            async with ClientSession(
                connector=one,
                headers=theirs.headers,
                skip_auto_headers=theirs.skip_auto_headers,
                cookie_jar=theirs.cookie_jar,
                trust_env=theirs.trust_env,
                trace_configs=[*theirs.trace_configs, *one.tracing],
            ) as client:
                yield client
            one.give_back()
        except NotImplementedError as error:  # not by `connect`, and it has no other way to make one
            raise RequestUnguarded(
                "aiohttp is a version that takes its connections in another way than is known here, so a getUpdates"
                " could not be reset if the lock were lost"
            ) from error
        finally:
            self._under_way.discard(one)

    def _may_write(self) -> None:
        if self._aborted:
            raise LockLost("the request was given up while its connection was made")
        self._check()


def updates_in(session: BaseSession, text: str) -> list[Raw] | None:
    """The updates in an answer to getUpdates, not looked into; None if it is another answer."""
    try:
        answer = session.json_loads(text)
    except Exception:  # noqa: BLE001 - the function may be anybody's, and aiogram says what is wrong with the text
        return None
    if not isinstance(answer, dict) or answer.get("ok") is not True or not isinstance(answer.get("result"), list):
        return None
    updates: list[Any] = answer["result"]
    if all(isinstance(update, dict) and isinstance(update.get("update_id"), int) for update in updates):
        return updates
    return None


OF_ITS_OWN = "__call__", "make_request", "check_response"
"""How a session calls Telegram. A session that makes these anew may do anything, over connections that nobody knows."""


def why_not_followed(session: BaseSession) -> str | None:
    """What keeps a request over this session from being guarded; None: nothing, it is made as aiogram makes it."""
    name = type(session).__name__
    if not isinstance(session, AiohttpSession):
        return f"{name} is not aiogram's AiohttpSession"
    for method in OF_ITS_OWN:
        if method in vars(session) or getattr(type(session), method, None) is not getattr(AiohttpSession, method, None):
            return f"{name} has a {method}() of its own"
    return None if hasattr(session, "create_session") else f"{name} of this aiogram has no create_session()"


def followed(session: BaseSession) -> AiohttpSession:
    """The session, if its requests are made as aiogram makes them. Raises RequestUnguarded otherwise."""
    reason = why_not_followed(session)
    if reason is not None or not isinstance(session, AiohttpSession):
        raise RequestUnguarded(
            f"{reason}: nobody knows over which connection it would send a getUpdates, so that could not be reset when"
            " the lock is lost. Use AiohttpSession and put what is your own into session middlewares, or call"
            " dispatcher.start_polling behind a LeaseGate, which takes every session and promises less"
        )
    return session


async def check_sessions(bots: Iterable[Bot]) -> None:
    """Raises RequestUnguarded if the session of a bot is one that cannot be followed, ValueError if more bots share one
    than it may have connections: each waits for updates on one."""
    shared = Counter(followed(bot.session) for bot in bots)
    for session, number in shared.items():
        if number == 1:
            continue
        connector = (await session.create_session()).connector
        if connector is not None and 0 < connector.limit <= number:
            raise ValueError(
                f"{number} bots share a session that has at most {connector.limit} connections, and each of them waits"
                " for updates on one: make it AiohttpSession(limit=0)"
            )
