"""A bot that writes down, in a file, what it does: no fault of a network keeps that from the test.

For `python -m bot start --app support.diary_bot:dispatcher`. The text "work 3" keeps its handler busy for 3 s, "insist
3" does so even if it is cancelled; "block 3" blocks the event loop, "hold 3" the whole interpreter, and with "gag 3"
nobody reads its log, "help 3" leaves the work to another program, once for each update: one that comes again does no
harm. Each line of the diary is a JSON object with `kind` and `at` (`clock.now()`):

    role     its role, or its deadline, has changed: role, term, deadline
    write    a request to Telegram is being written: request (its number), term, deadline
    answer   it was answered: request
    gone     it was given up, or failed: request
    run      a handler began: update, term, deadline; and again when it ended: start, outcome
    helper   the program that works for a handler is at work, now and then
    size     how many tasks there are, now and then: tasks
    began    a term begins: term, origin (how its lock came about), deadline
    ended    a term is over: term, lost (why, or null), deadline
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import json
import os
import select
import sys
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from aiogram import Bot, Dispatcher
from aiogram.types import Message, Update

from cluster_lock import clock
from cluster_lock.aiogram import connection, fetching
from cluster_lock.aiogram.poller import lock_name
from cluster_lock.election import Leadership, Term
from cluster_lock.testing.telegram import CLIENT_HEADER, SENT_HEADER, TERM_HEADER
from cluster_lock.testing.telegram.session import TellingSession

DIARY, CLIENT, MUTANT = "TEST_BOT_DIARY", "CLUSTER_LOCK_INSTANCE", "TEST_BOT_MUTANT"
CLOSES_GENTLY = "closes its connections gently"
SLACK = "TEST_BOT_SLACK"
"""Seconds beyond its poll timeout after which a getUpdates counts as unanswered, instead of 10."""
LOOK_EVERY = 0.02
USUAL_WORK = 0.01
HELPER = """
import sys, time
file, end = open(sys.argv[1], "ab", buffering=0), time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    file.write(b'{"kind": "helper", "at": %.6f}\\n' % time.clock_gettime(time.CLOCK_BOOTTIME))
    time.sleep(0.02)
"""

_request: ContextVar[int] = ContextVar("request")
_numbers = itertools.count(1)

dispatcher = Dispatcher(disable_fsm=True)


class Diary:
    """`client` is what the simulator's oracle calls this process."""

    def __init__(self) -> None:
        self.client = client_name(os.environ[CLIENT], os.getpid())
        self.path = Path(os.environ[DIARY])
        self._file = self.path.open("ab", buffering=0)
        self._leadership: Leadership | None = None
        self._lock = ""
        self._tasks: list[asyncio.Task[Any]] = []

    def note(self, kind: str, at: float | None = None, **facts: Any) -> None:
        """One line, in one write: a process that is killed leaves no half of it."""
        line = {"kind": kind, "at": clock.now() if at is None else at, **facts}
        self._file.write(json.dumps(line).encode() + b"\n")

    def first_time(self, update: int) -> bool:
        """Has no process of this bot begun with this update before?"""
        try:
            self.path.with_name(f"begun-{update}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def begin(self, bot: Bot, leadership: Leadership) -> None:
        self._leadership, self._lock = leadership, lock_name(bot)
        self._tasks = [
            asyncio.create_task(self._follow_role(leadership)),
            asyncio.create_task(self._follow_size()),
            asyncio.create_task(leadership.run(self._follow_term, self._lock)),
        ]

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def headers(self) -> dict[str, str]:
        """Called at the moment in which a request is written."""
        now, term = clock.now(), self._leadership.term(self._lock) if self._leadership is not None else None
        token = term.fencing_token if term is not None else None
        until = term.deadline if term is not None else None
        self.note("write", at=now, request=_request.get(), term=token, deadline=until)
        mine = {CLIENT_HEADER: self.client, SENT_HEADER: f"{now:.6f}"}
        return mine if token is None else {**mine, TERM_HEADER: str(token)}

    async def note_answer(self, make_request: Any, bot: Bot, method: Any) -> Any:
        """A session's middleware."""
        number = next(_numbers)
        _request.set(number)
        try:
            response = await make_request(bot, method)
        except BaseException:
            self.note("gone", request=number)
            raise
        self.note("answer", request=number)
        return response

    async def _follow_role(self, leadership: Leadership) -> None:
        last = dict[str, Any]()
        while True:
            term = leadership.term(self._lock)
            now: dict[str, Any] = {
                "role": str(leadership.role(self._lock)),
                "term": term.fencing_token if term is not None else None,
                "deadline": round(term.deadline, 6) if term is not None else None,
            }
            if now != last:
                self.note("role", **now)
                last = now
            await asyncio.sleep(LOOK_EVERY)

    async def _follow_size(self) -> None:
        while True:
            self.note("size", tasks=len(asyncio.all_tasks()))
            await asyncio.sleep(1)

    async def _follow_term(self, term: Term) -> None:
        self.note("began", term=term.fencing_token, origin=str(term.origin), deadline=term.deadline)
        try:
            await asyncio.Event().wait()
        finally:
            self.note("ended", term=term.fencing_token, lost=term.ended, deadline=term.deadline)


def client_name(instance: str, pid: int) -> str:
    return f"{instance}#{pid}"


@dispatcher.startup()
async def started(bot: Bot, dispatcher: Dispatcher, leadership: Leadership) -> None:
    if SLACK in os.environ:
        fetching.REQUEST_SLACK = float(os.environ[SLACK])
    if os.environ.get(MUTANT) == CLOSES_GENTLY:
        connection.Borrowed.set_options = lambda self, sock, time_left: None  # type: ignore[method-assign]
    dispatcher["diary"] = diary = Diary()
    plain = bot.session
    bot.session = TellingSession(api=plain.api, headers=diary.headers)
    bot.session.middleware(diary.note_answer)
    await plain.close()
    diary.begin(bot, leadership)


@dispatcher.shutdown()
async def stopped(dispatcher: Dispatcher) -> None:
    await dispatcher["diary"].end()


@dispatcher.message()
async def handle(message: Message, event_update: Update, term: Term, diary: Diary) -> None:
    start = clock.now()
    run = {"update": event_update.update_id, "term": term.fencing_token, "start": start}
    diary.note("run", at=start, **run, outcome=None, deadline=term.deadline)
    outcome = "cancelled"
    try:
        await work(message.text or "", event_update.update_id, diary)
        outcome = "ok"
    finally:
        diary.note("run", **run, outcome=outcome, deadline=term.deadline)


async def work(text: str, update: int, diary: Diary) -> None:
    """What the text says, or the usual little."""
    word, _, seconds = text.partition(" ")
    if word == "work":
        await asyncio.sleep(float(seconds))
    elif word == "insist":
        await insist(clock.now() + float(seconds))
    elif word == "block" and diary.first_time(update):
        time.sleep(float(seconds))  # noqa: ASYNC251 - what a careless handler does
    elif word == "hold" and diary.first_time(update):
        ctypes.PyDLL(None).usleep(int(float(seconds) * 1e6))
    elif word == "gag" and diary.first_time(update):
        await gag(float(seconds))
    elif word == "help" and diary.first_time(update):
        await get_help(diary, seconds)
    else:
        await asyncio.sleep(USUAL_WORK)


async def get_help(diary: Diary, seconds: str) -> None:
    """A program works, as long as this process is there and wants it to."""
    helper = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", HELPER, str(diary.path), seconds)
    try:
        await helper.wait()
    finally:
        if helper.returncode is None:
            helper.kill()


async def gag(seconds: float) -> None:
    """Stderr is a pipe that is full, for so long."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"." * select.PIPE_BUF)
    os.set_blocking(writer, True)
    stderr = os.dup(2)
    os.dup2(writer, 2)
    try:
        await asyncio.sleep(seconds)
    finally:
        os.dup2(stderr, 2)
        os.set_blocking(reader, False)
        with contextlib.suppress(BlockingIOError):  # who hangs in a write gets on
            while os.read(reader, 65536):
                pass
        for descriptor in (reader, writer, stderr):
            os.close(descriptor)


async def insist(end: float) -> None:
    while (left := end - clock.now()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(left)
