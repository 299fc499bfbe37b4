"""How one poller works: everything that can be chosen, in one frozen value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aiogram import Bot
from aiogram.types import Update
from aiogram.utils.backoff import BackoffConfig

from cluster_lock.election import Term
from cluster_lock.telegram.times import TelegramTimes
from cluster_lock.values import Timing

from .conflicts import ConflictRules

Delivery = Literal["at_least_once", "at_most_once"]
DeleteWebhook = Literal["never", "on_conflict"]
Order = Literal["none", "member", "chat"]
WindowRule = Literal["open", "strict"]
OnFailed = Callable[[Bot, Update, Exception], Awaitable[None]]
OnTerm = Callable[[Bot, Term], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`timing`: of the lease and of a step-down, `times`: those that are Telegram's and of handlers.
    `delivery`: "at_least_once" confirms an update after its handler, "at_most_once" before it.
    `order`: "none" starts updates in the order of their delivery, side by side, as aiogram does; "member" and "chat"
    let those of one dialogue (the key of aiogram's FSM) or of one chat wait for each other. `window`: "open" confirms
    the update of a handler that takes long before its end when else the bot would fall silent, "strict" would rather
    wait. `max_concurrent`: handlers at once, without those whose update was confirmed early. `limited`: that number is
    the caller's own wish: it holds for all, and urgent queries wait like all others. `sequential`: one at a time.
    `allowed_updates`: None leaves what Telegram has on record. `delete_webhook`: remove one that is in the way; updates
    that wait for it are kept. `backoff`: aiogram's waits after failures instead of ours. `data`: arguments for
    handlers. `on_failed`: called with an update whose handler raised or ran out of its time (TimeoutError), that ended
    the process again and again (CrashedTooOften), that aiogram cannot read (UpdateUnreadable), or whose handler was cut
    off at a hand-over after it was confirmed early (CutOff); it is confirmed all the same. `crash_notes(bot_id)`: the
    file for the CrashNotes of a bot. `on_elected` and `on_step_down`: called at the beginning and the end of each term.
    `one_host`: the lock keeps apart the processes of one host only.
    """

    timing: Timing = field(default_factory=Timing)
    times: TelegramTimes = field(default_factory=TelegramTimes)
    delivery: Delivery = "at_least_once"
    order: Order = "none"
    window: WindowRule = "open"
    max_concurrent: int = 100
    limited: bool = False
    sequential: bool = False
    allowed_updates: Sequence[str] | None = None
    conflict: ConflictRules = field(default_factory=ConflictRules)
    delete_webhook: DeleteWebhook = "never"
    backoff: BackoffConfig | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    on_failed: OnFailed | None = None
    crash_notes: Callable[[int], Path | None] | None = None
    on_elected: OnTerm | None = None
    on_step_down: OnTerm | None = None
    instance: str = "this instance"
    one_host: bool = False
