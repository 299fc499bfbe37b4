"""What a process shows of itself: probes, metrics, events and one page, on a port of this host.

It has no verb that changes anything, and it is fed with plain values: it knows neither aiogram nor the configuration,
so that a small parent process can serve it for the worker that has them.
"""

from __future__ import annotations

from .board import Board
from .opening import open_health
from .systemd import Notifier, following

__all__ = ["Board", "Notifier", "following", "open_health"]
