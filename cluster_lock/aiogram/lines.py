"""Which updates wait for each other: those of one line, where an order was asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from aiogram import Bot, Dispatcher
from aiogram.dispatcher.middlewares.user_context import UserContextMiddleware
from aiogram.types import Update

URGENT = frozenset({"inline_query", "callback_query", "shipping_query", "pre_checkout_query"})
"""Kinds of updates that somebody must answer within seconds, or it is too late: they wait for no other update."""


class InLine(Protocol):
    @property
    def line(self) -> Hashable: ...

    @property
    def album(self) -> Hashable: ...


J = TypeVar("J", bound=InLine)


class Lines:
    """The updates of a line go one after the other, in the order in which they `enter`. Only the parts of an album do
    not wait for each other's ends: what collects them holds the first one back until it has seen the others."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[Any]] = {}
        self._may_start: dict[Hashable, int] = {}
        """How many of a line, from its first one on, may start, or have."""

    @property
    def waiting(self) -> int:
        return sum(len(line) - self._may_start[name] for name, line in self._lines.items())

    def enter(self, job: InLine) -> bool:
        """True if it may start now; else a `leave` of another one says so."""
        line = self._lines.setdefault(job.line, deque())
        line.append(job)
        free = self._may_start.setdefault(job.line, 0)
        if free < len(line) - 1 or (free and not _are_of_one_album(line[0], job)):
            return False
        self._may_start[job.line] = free + 1
        return True

    def leave(self, job: J) -> list[J]:
        """It has ended. What may start by that, in order."""
        line = self._lines[job.line]
        line.remove(job)
        self._may_start[job.line] -= 1
        if not line:
            del self._lines[job.line], self._may_start[job.line]
            return []
        if self._may_start[job.line]:
            return []  # the rest of an album
        free = list(_first_ones(line))
        self._may_start[job.line] = len(free)
        return free


def _first_ones(line: deque[Any]) -> Iterator[Any]:
    for number, job in enumerate(line):
        if number and not _are_of_one_album(line[0], job):
            return
        yield job


def _are_of_one_album(one: InLine, other: InLine) -> bool:
    return one.album is not None and one.album == other.album


def is_urgent(update: Mapping[str, Any]) -> bool:
    return not URGENT.isdisjoint(update)


def album(update: Mapping[str, Any]) -> Hashable:
    """What the parts of one album have in common; None: it is no part of one. One that is edited later is on its own.

    Read from what Telegram sent, as below: so kinds of updates that this aiogram does not know have it too.
    """
    message = update.get("message") or update.get("channel_post") or update.get("business_message")
    group = message.get("media_group_id") if isinstance(message, dict) else None
    return (conversation(update), group) if isinstance(group, str) else None


def conversation(update: Mapping[str, Any]) -> Hashable:
    """The line of an update with `order: chat`: the chat, else the sender, else nothing (the update stands for
    itself). A private chat has the id of its user."""
    for event in update.values():
        if not isinstance(event, dict):
            continue  # update_id
        message = event.get("message")
        inner = message.get("chat") if isinstance(message, dict) else None
        for who in (event.get("chat"), inner, event.get("from"), event.get("user"), event.get("voter_chat")):
            if isinstance(who, dict) and "id" in who:
                return who["id"]  # type: ignore[no-any-return]
    return "update", update.get("update_id")


def dialogue(dispatcher: Dispatcher, bot: Bot, update: Update) -> Hashable:
    """The line of an update with `order: member`: the key under which aiogram keeps the state of a dialogue, by default
    chat and user. An update that has none stands for itself."""
    of = UserContextMiddleware.resolve_event_context(update)
    state = dispatcher.fsm.resolve_context(bot, of.chat_id, of.user_id, of.thread_id, of.business_connection_id)
    return state.key if state is not None else ("update", update.update_id)
