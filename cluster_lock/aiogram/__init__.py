"""The guarded aiogram poller: exactly one process polls a bot, and only while it provably holds the bot's lock.

`start_polling(dispatcher, bot)` instead of `dispatcher.start_polling(bot)` is all that a program has to change.
"""

from cluster_lock.telegram.errors import ConflictPersists, RequestUnguarded, TelegramTokenRefused
from cluster_lock.telegram.poller_state import PollerState
from cluster_lock.telegram.times import TelegramTimes

from .bots import bot_from
from .conflicts import Conflict, ConflictRules
from .crashes import CrashedTooOften
from .feeding import CutOff
from .gate import LeaseGate
from .manager import PollingManager
from .poller import Poller, lock_name
from .reading import UpdateUnreadable
from .rules import Rules
from .start import run_polling, start_polling

__all__ = [
    "Conflict",
    "ConflictPersists",
    "ConflictRules",
    "CrashedTooOften",
    "CutOff",
    "LeaseGate",
    "Poller",
    "PollerState",
    "PollingManager",
    "RequestUnguarded",
    "Rules",
    "TelegramTimes",
    "TelegramTokenRefused",
    "UpdateUnreadable",
    "bot_from",
    "lock_name",
    "run_polling",
    "start_polling",
]
