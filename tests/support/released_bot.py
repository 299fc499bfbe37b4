"""`support.diary_bot` on an older version, with that one on the path instead of this one:

    python -m support.released_bot start --in-process --app support.diary_bot:dispatcher ...

What the diary uses and 0.1.0 has under another name, or not at all, is put in its place first.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

from aiogram.types import TelegramObject

Data = dict[str, Any]
Handler = Callable[[TelegramObject, Data], Awaitable[Any]]


class FileLock:
    """As much of filelock's as that version uses: it needs the package, and we have no other use for it."""

    def __init__(self, path: str, **_: Any) -> None:
        self._path = path
        self._context = SimpleNamespace(lock_file_fd=None)

    def acquire(self, **_: Any) -> None:
        if self._context.lock_file_fd is not None:
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise TimeoutError from None
        self._context.lock_file_fd = descriptor

    def release(self) -> None:
        descriptor, self._context.lock_file_fd = self._context.lock_file_fd, None
        if descriptor is not None:
            os.close(descriptor)


def stands_for(name: str, **names: Any) -> None:
    """A module that is not there, with these names in it."""
    sys.modules[name] = module = ModuleType(name)
    vars(module).update(names)
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(import_module(parent), last, module)


def prepare() -> None:
    stands_for("filelock", FileLock=FileLock, SoftFileLock=type("SoftFileLock", (), {}), Timeout=TimeoutError)
    # Its sessions tell who writes, if asked to. There its rules for connections are the session's, so it must be one.
    session = import_module("cluster_lock.aiogram.http_session").GuardedSession
    stands_for("cluster_lock.testing.telegram.session", TellingSession=session)
    stands_for("cluster_lock.aiogram.connection")
    vars(import_module("cluster_lock.election"))["Leadership"] = import_module("cluster_lock.leadership").Leadership
    from .diary_bot import dispatcher

    dispatcher.message.middleware.register(named_term)


async def named_term(handler: Handler, event: TelegramObject, data: Data) -> Any:
    """Handlers there know their term as `lease` only."""
    return await handler(event, {**data, "term": data["lease"]})


def main() -> int:
    if find_spec("cluster_lock.testing.telegram.session") is None:
        prepare()
    from cluster_lock.cli import main

    return main(["bot", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
