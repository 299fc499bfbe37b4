"""How one poller works: everything that can be chosen, in one frozen value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aiogram import Bot
from aiogram.types import Update
from aiogram.utils.backoff import BackoffConfig

from cluster_lock.leadership import Term
from cluster_lock.values import Timing

from .conflicts import ConflictRules

Delivery = Literal["at_least_once", "at_most_once"]
DeleteWebhook = Literal["never", "on_conflict"]
OnFailed = Callable[[Bot, Update, Exception], Awaitable[None]]
OnTerm = Callable[[Bot, Term], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`delivery`: "at_least_once" confirms an update after its handler, "at_most_once" before it.
    `sequential`: one update at a time, whatever its chat. `max_concurrent`: handlers at once, over all chats.
    `allowed_updates`: None leaves what Telegram has on record. `delete_webhook`: remove one that is in the way; updates
    that wait for it are kept. `backoff`: aiogram's waits after failures instead of ours. `data`: arguments for
    handlers. `on_failed`: called with an update whose handler raised, ran out of its time (TimeoutError), or ended the
    process again and again (CrashedTooOften); it is confirmed all the same. `crash_notes(bot_id)`: the file for the
    CrashNotes of a bot. `on_elected` and `on_step_down`: called at the beginning and the end of each term.
    `one_host`: the lock keeps apart the processes of one host only.
    """

    timing: Timing = field(default_factory=Timing)
    delivery: Delivery = "at_least_once"
    max_concurrent: int = 100
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
