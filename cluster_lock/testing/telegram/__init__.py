"""A Telegram Bot API server for tests, faithful to tdlib/telegram-bot-api where polling is concerned.

It simulates what getUpdates really does: the newest poll wins and the old one gets the 409, an update is acknowledged
when a higher offset *arrives*, a closed connection frees nothing. Its oracle says afterwards whether two clients ever
polled at once and whether an update was lost, doubled or handled out of order.

In a test: `async with TelegramSimulator() as simulator: ...`; for other processes:
`python -m cluster_lock.testing.telegram` and `SimulatorControl(url)`.
Not simulated: flood limits (inject a Fault with `retry_after`), files, delivery to webhooks.
"""

from .bot_key import BotKey, BotRef
from .client import SimulatorControl, SimulatorError
from .clocks import Clock, LoopClock, ManualClock
from .engine import Call
from .faults import Fault
from .headers import CLIENT_HEADER, SENT_HEADER, TERM_HEADER
from .history import Delivery, Poll, Run, Update
from .judge import Change, SeenPoll
from .oracle import Oracle, Report
from .simulator import TelegramSimulator

__all__ = [
    "CLIENT_HEADER",
    "SENT_HEADER",
    "TERM_HEADER",
    "BotKey",
    "BotRef",
    "Call",
    "Change",
    "Clock",
    "Delivery",
    "Fault",
    "LoopClock",
    "ManualClock",
    "Oracle",
    "Poll",
    "Report",
    "Run",
    "SeenPoll",
    "SimulatorControl",
    "SimulatorError",
    "TelegramSimulator",
    "Update",
]
