"""What to do after a getUpdates that failed: wait, how long, say what, give up or go on."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections.abc import Mapping
from typing import Any

from aiogram import Bot
from aiogram.exceptions import TelegramNotFound, TelegramUnauthorizedError
from aiogram.methods import DeleteWebhook, GetMe

from cluster_lock import clock
from cluster_lock.aio import Backoff
from cluster_lock.drivers import FOR_SEVERAL_HOSTS
from cluster_lock.election import Term
from cluster_lock.errors import BackendRefused, BackendUnavailable
from cluster_lock.telegram.errors import ConflictPersists, TelegramTokenRefused
from cluster_lock.values import EndCode, EndReason

from .classify import Failure, Kind, classify, describe
from .conflicts import Conflict, ConflictCallback
from .rules import Rules
from .state import Facts

log = logging.getLogger("cluster_lock.aiogram")

WEBHOOK = 1.0, 5.0
"""Seconds between two looks whether a webhook is gone: at first, and at most. Nothing else tells, and Telegram is not
troubled by a getUpdates that it refuses."""
SECOND_LOOK = 3.0
"""Seconds after which a refused token is tried again before it is believed. What stands before a Bot API server may say
404 while that starts anew."""
PREDECESSOR = 5.0
"""Seconds beyond a poll timeout in which a conflict may come from the long poll of the leader before. (Not by the
source, where the newest poll wins; by reports from the field.)"""
SECOND = 2
"""Conflicts in a row. Where the lock serves one host alone the likely reason is an instance on another one, which has a
lock of its own and goes on: the first may be an accident, this one is said."""
ELSEWHERE = f"an instance on another host (the file backend serves one host: for several choose {FOR_SEVERAL_HOSTS}), "
OTHER_CALL = 10.0
"""Seconds for a call to Telegram that is no poll, and for a callback of the user's."""


class Recovery:
    """The failures of one bot in one term. `began`: when its first getUpdates could go out."""

    def __init__(self, bot: Bot, term: Term, rules: Rules, facts: Facts) -> None:
        self._bot, self._term, self._rules, self._facts = bot, term, rules, facts
        given, conflict = rules.backoff, rules.conflict
        self._conflict = Backoff(conflict.first, conflict.longest, conflict.factor, conflict.jitter)
        self._server = Backoff(given.min_delay, given.max_delay, given.factor) if given else Backoff(1.0, 30.0)
        self._network = Backoff(given.min_delay, given.max_delay, given.factor) if given else Backoff(0.5, 15.0)
        self._webhook = Backoff(*WEBHOOK)
        self._began = clock.now()
        self._unreachable_since: float | None = None
        self._ask_others_at = 0.0
        self._trouble: Kind | None = None

    def succeeded(self, *, survived: bool) -> None:
        """Telegram answered. `survived`: the getUpdates lasted its whole time, or brought updates."""
        self._server.reset()
        self._network.reset()
        self._webhook.reset()
        self._unreachable_since = None
        if survived:
            self._conflict.reset()
            if self._facts.conflicts.survived(clock.now()):
                log.warning("bot %d: nobody else polls it any more", self._bot.id)
        if self._trouble is not None and (survived or self._trouble is not Kind.CONFLICT):
            log.info("bot %d: getUpdates works again", self._bot.id)
            self._trouble = None

    async def after(self, error: Exception, sent_at: float) -> None:
        """Return when it is time to try again. Raises TelegramTokenRefused and ConflictPersists, LockLost if the
        backend says that the lock is not ours."""
        failure = classify(error, self._bot.token)
        self._facts.last_error = failure.text
        self._facts.errors[failure.kind.value] += 1
        if failure.kind is not Kind.NETWORK:
            self._unreachable_since = None
        match failure.kind:
            case Kind.TOKEN:
                pause = max(SECOND_LOOK, self._server.next())
                await self._wait(failure, pause, "Telegram refuses the token, which may be a mistake")
                await refused_again(self._bot)
            case Kind.CONFLICT:
                await self._after_conflict(failure)
            case Kind.WEBHOOK:
                await self._after_webhook(failure)
            case Kind.FLOOD:
                pause = failure.retry_after + random.uniform(0.0, 0.5)
                await self._wait(failure, pause, f"Telegram asks for a pause of {failure.retry_after:g} s")
            case Kind.NETWORK:
                self._see_whether_others_reach_it(sent_at)
                await self._wait(failure, self._network.next(), "Telegram does not answer")
            case Kind.SERVER:
                await self._wait(failure, self._server.next(), "Telegram's answer cannot be used")

    async def _wait(self, failure: Failure, pause: float, what: str) -> None:
        """Wait, and say so once: what goes on failing in the same way is logged for those who debug."""
        level = logging.DEBUG if failure.kind is self._trouble else logging.WARNING
        self._trouble = failure.kind
        log.log(level, "bot %d: %s, trying again in %.1f s: %s", self._bot.id, what, pause, failure.text)
        with self._facts.waiting(what):
            await asyncio.sleep(pause)

    async def _after_conflict(self, failure: Failure) -> None:
        conflicts, rules, now = self._facts.conflicts, self._rules.conflict, clock.now()
        tolerated = now - self._began < self._rules.times.poll_timeout + PREDECESSOR
        begins = conflicts.met(now, tolerated=tolerated)
        pause = self._conflict.next()
        await self._verify()
        if begins or (self._rules.one_host and conflicts.in_row == SECOND):
            self._say_storm(conflicts.in_last_minute(now))
        if callable(rules.on_conflict):
            attempt, in_minute = conflicts.in_row, conflicts.in_last_minute(now)
            await self._call_back(
                rules.on_conflict,
                Conflict(self._bot.id, self._term.name, attempt, pause, in_minute, conflicts.storm, failure.text),
            )
        give_up = rules.give_up_after is not None and conflicts.in_row > rules.give_up_after
        if give_up or (conflicts.storm and rules.on_conflict == "exit"):
            raise ConflictPersists(
                f"bot {self._bot.id} is polled by somebody outside of the lock: {conflicts.in_row} conflicts in a row"
            )
        if begins and rules.on_conflict == "step_down":
            reason = EndReason("somebody polls outside of the lock", EndCode.CONFLICTS)
            self._term.step_down(reason, cool_down=self._rules.times.telegram_grace)
        await self._wait(failure, pause, "another getUpdates took the place of ours")

    def _say_storm(self, in_minute: int) -> None:
        log.error(
            "bot %d is polled by somebody outside of the lock, %d conflicts in the last minute. %s holds %s (fencing"
            " token %d): look for %san instance with another configuration, or a program with the same token",
            self._bot.id,
            in_minute,
            self._rules.instance,
            self._term.name,
            self._term.fencing_token,
            ELSEWHERE if self._rules.one_host else "",
        )

    async def _verify(self) -> None:
        """A 409 is a hint that we may have missed our own end: ask the backend, and believe the lease if it is
        silent."""
        try:
            await self._term.verify()
        except (BackendUnavailable, BackendRefused) as error:
            log.info("bot %d: the lock could not be verified, the lease is still good: %s", self._bot.id, error)

    async def _call_back(self, call: ConflictCallback, conflict: Conflict) -> None:
        try:
            async with asyncio.timeout(OTHER_CALL):
                answer = call(conflict)
                if inspect.isawaitable(answer):
                    await answer
        except Exception:
            log.exception("bot %d: on_conflict failed", self._bot.id)

    async def _after_webhook(self, failure: Failure) -> None:
        if self._rules.delete_webhook == "on_conflict":
            self._term.check()
            try:
                async with asyncio.timeout(OTHER_CALL):
                    await self._bot(DeleteWebhook(), request_timeout=int(OTHER_CALL))
            except Exception as error:  # noqa: BLE001 - the next getUpdates shows what is still so
                log.warning(
                    "bot %d: its webhook could not be deleted: %s", self._bot.id, describe(error, self._bot.token)
                )
            else:
                log.warning("bot %d: deleted the webhook that was in the way; its updates are kept", self._bot.id)
                return
        await self._wait(
            failure,
            self._webhook.next(),
            "a webhook is set, and Telegram answers no getUpdates meanwhile (remove it with deleteWebhook, or set"
            " delete_webhook: on_conflict)",
        )

    def _see_whether_others_reach_it(self, sent_at: float) -> None:
        """If Telegram is unreachable from here for long, offer the term to one that reaches it. Nobody: then it is
        Telegram that is down, and leadership must not go round in circles."""
        now, grace = clock.now(), self._rules.times.telegram_grace
        if self._unreachable_since is None:
            self._unreachable_since, self._ask_others_at = sent_at, sent_at + grace
        if now < self._ask_others_at or self._term.request is not None:
            return
        self._ask_others_at = now + grace / 4
        silent = now - self._unreachable_since
        reason = EndReason(f"Telegram has not been reached from here for {silent:.0f} s", EndCode.OUT_OF_REACH)
        self._term.step_down(reason, cool_down=grace, willing=reaches_telegram)


async def refused_again(bot: Bot) -> None:
    """Raises TelegramTokenRefused if Telegram refuses the token now as well. Any other answer, or none, is none."""
    try:
        async with asyncio.timeout(OTHER_CALL):
            await bot(GetMe(), request_timeout=int(OTHER_CALL))
    except (TelegramUnauthorizedError, TelegramNotFound) as error:
        raise TelegramTokenRefused(
            f"Telegram refuses the token of bot {bot.id}: {describe(error, bot.token)}"
        ) from error
    except Exception as error:  # noqa: BLE001 - whatever it is, the poller meets it again and knows what to do
        log.info("bot %d: whether its token is good is not known: %s", bot.id, describe(error, bot.token))


def reaches_telegram(answer: Mapping[str, Any]) -> bool:
    """What an invited contender says of itself (`Poller.answer`)."""
    return answer.get("telegram") is True
