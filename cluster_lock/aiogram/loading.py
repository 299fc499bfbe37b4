"""While a bot is loaded by its name, nobody polls: what leads first does not exist yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from aiogram import Dispatcher

Refuse = Callable[[str], None]

_POLLS = ("start_polling", "run_polling")
_refuse: Refuse | None = None


@contextmanager
def no_polling(refuse: Refuse) -> Iterator[None]:
    """Whatever begins to poll in the block, by aiogram or by us and from whichever task or thread, calls `refuse` with
    the name of what was called, and polls only if that returns."""
    global _refuse
    before = {name: vars(Dispatcher)[name] for name in _POLLS}
    checked = {name: _checked(method) for name, method in before.items()}
    _refuse = refuse
    try:
        for name, method in checked.items():
            setattr(Dispatcher, name, method)
        yield
    finally:
        _refuse = None
        for name, method in before.items():
            if vars(Dispatcher)[name] is checked[name]:  # else the bot has put its own there
                setattr(Dispatcher, name, method)


def check(what: str) -> None:
    """To be called by what begins to poll."""
    if _refuse is not None:
        _refuse(what)


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*arguments: Any, **keywords: Any) -> Any:
        check(f"Dispatcher.{method.__name__}")
        return method(*arguments, **keywords)

    return call
