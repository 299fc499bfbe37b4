"""The guarded aiogram poller: exactly one process polls a bot, and only while it provably holds the bot's lock.

`start_polling(dispatcher, bot)` instead of `dispatcher.start_polling(bot)` is all that a program has to change.
"""

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
from .state import PollerState

__all__ = [
    "Conflict",
    "ConflictRules",
    "CrashedTooOften",
    "CutOff",
    "LeaseGate",
    "Poller",
    "PollerState",
    "PollingManager",
    "Rules",
    "UpdateUnreadable",
    "bot_from",
    "lock_name",
    "run_polling",
    "start_polling",
]
