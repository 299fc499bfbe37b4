"""ShutdownManager inside one loop: order, limits, failures."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import logging
import threading

import pytest
from support import aio

from cluster_lock.process import ShutdownManager


def test_last_in_first_out() -> None:
    """What was registered last is stopped first, sync and async alike, one after the other."""
    called: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(0.05)
        called.append("slow")

    async def main() -> None:
        manager = ShutdownManager()
        manager.register_callback(lambda: called.append("first"))
        manager.register_callback(slow)
        manager.register_callback(functools.partial(called.append, "last"))
        await manager.shutdown()

    aio.run(main())
    assert called == ["last", "slow", "first"]


def test_each_callback_runs_whatever_the_others_do(caplog: pytest.LogCaptureFixture) -> None:
    """One that raises, hangs, cannot be cancelled, exits or blocks is named, and the rest run."""
    called: list[str] = []
    blocked = threading.Event()

    async def hangs() -> None:
        await asyncio.Event().wait()

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if called:
                    raise

    def raises() -> None:
        raise OSError("broken")

    def exits() -> None:
        raise SystemExit(3)

    async def main() -> None:
        manager = ShutdownManager(timeout=0.1)
        manager.register_callback(gc.collect, timeout=10)
        manager.register_callback(lambda: called.append("the rest"), name="rest", timeout=5)
        manager.register_callback(raises)
        manager.register_callback(hangs)
        manager.register_callback(stubborn)
        manager.register_callback(exits)
        manager.register_callback(blocked.wait, name="blocks")
        await manager.shutdown()

    try:
        aio.run(main())
    finally:
        blocked.set()
    assert called == ["the rest"]
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    for name in ("raises failed", "hangs is not done", "stubborn is not done", "exits failed", "blocks is not done"):
        assert [line for line in said if name in line], (name, said)
    assert len(said) == 5


def test_a_callback_has_a_limit_of_its_own() -> None:
    """A callback with a time limit of its own gets it, not the manager's."""
    called: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(0.2)
        called.append("slow")

    async def main() -> None:
        manager = ShutdownManager(timeout=0.01)
        manager.register_callback(slow, timeout=10)
        await manager.shutdown()

    aio.run(main())
    assert called == ["slow"]


async def test_shutdown_happens_once() -> None:
    """Anybody who calls shutdown, at once or later, sees one and the same shutdown, and waits for its end."""
    called: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(0.05)
        called.append("done")

    manager = ShutdownManager()
    manager.register_callback(slow)
    await asyncio.gather(manager.shutdown(), manager.shutdown())
    assert called == ["done"]
    await manager.shutdown()
    assert called == ["done"]
    with pytest.raises(RuntimeError, match="over"):
        manager.register_callback(slow)


def test_callbacks_registered_during_the_shutdown_run_next() -> None:
    """A callback may register more; they run before those that were registered earlier."""
    called: list[str] = []

    async def main() -> None:
        manager = ShutdownManager()

        async def more() -> None:
            called.append("more")
            manager.register_callback(lambda: called.append("inner"))
            await manager.shutdown()  # part of what it asks for: it does not wait for itself

        manager.register_callback(lambda: called.append("first"))
        manager.register_callback(more)
        await manager.shutdown()

    aio.run(main())
    assert called == ["more", "inner", "first"]


def test_a_cancelled_caller_does_not_break_off_the_shutdown() -> None:
    """Who is cancelled while shutting down sees it through, and is cancelled after it."""
    called: list[str] = []

    async def main() -> None:
        manager = ShutdownManager()
        running = asyncio.Event()

        async def slow() -> None:
            running.set()
            await asyncio.sleep(0.05)
            called.append("slow")

        manager.register_callback(lambda: called.append("first"))
        manager.register_callback(slow)
        task = asyncio.create_task(manager.shutdown())
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    aio.run(main())
    assert called == ["slow", "first"]


def test_the_block_shuts_down_even_when_it_fails() -> None:
    """Leaving the block with an error runs the callbacks and lets the error through."""
    called: list[str] = []

    async def main() -> None:
        async with ShutdownManager() as manager:
            manager.register_callback(lambda: called.append("done"))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        aio.run(main())
    assert called == ["done"]


def test_what_a_sync_callback_returns_is_awaited() -> None:
    """`lambda: session.close()` closes the session, though it is not a coroutine function."""
    called: list[str] = []

    async def close() -> None:
        called.append("closed")

    async def main() -> None:
        manager = ShutdownManager()
        manager.register_callback(lambda: close())
        await manager.shutdown()

    aio.run(main())
    assert called == ["closed"]


def test_an_async_callback_runs_in_the_loop() -> None:
    """Async functions, partials of them and async objects run in the loop's own thread; sync ones in another."""
    threads: dict[str, bool] = {}

    def note(name: str) -> None:
        threads[name] = threading.current_thread() is threading.main_thread()

    async def function(name: str = "function") -> None:
        note(name)

    class Closer:
        async def __call__(self) -> None:
            note("object")

    async def main() -> None:
        manager = ShutdownManager()
        manager.register_callback(function)
        manager.register_callback(functools.partial(function, "partial"))
        manager.register_callback(Closer())
        manager.register_callback(lambda: note("sync"))
        await manager.shutdown()

    aio.run(main())
    assert threads == {"function": True, "partial": True, "object": True, "sync": False}


async def test_a_coroutine_is_refused() -> None:
    """`register_callback(session.close())` is told what to write instead."""

    async def close() -> None: ...

    with pytest.raises(TypeError, match="something to call"):
        ShutdownManager().register_callback(close())  # type: ignore[type-var, unused-coroutine]


async def test_it_decorates() -> None:
    """`register_callback` gives back the function, so it can stand above one."""
    manager = ShutdownManager()

    @manager.register_callback
    async def goodbye() -> None: ...

    assert inspect.iscoroutinefunction(goodbye)
    await manager.shutdown()


def test_secret_arguments_are_not_named(caplog: pytest.LogCaptureFixture) -> None:
    """A callback without a name of its own is not named by its arguments."""

    def logout(token: str) -> None:
        raise OSError("no")

    async def main() -> None:
        manager = ShutdownManager()
        manager.register_callback(functools.partial(logout, "42:SECRET"))
        await manager.shutdown()

    aio.run(main())
    assert "logout failed" in caplog.text
    assert "SECRET" not in caplog.messages[0]


async def test_a_request_ends_the_wait() -> None:
    """`request()` does what a signal does, and `wait()` says that it was none."""
    manager = ShutdownManager()
    asyncio.get_running_loop().call_soon(manager.request)
    assert await manager.wait() is None
    assert manager.requested


def test_signals_need_the_main_thread() -> None:
    """In another thread the attempt to register signals says so."""
    said: list[str] = []

    async def main() -> None:
        try:
            ShutdownManager().register_signals()
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(20)
    assert "main thread" in said[0]
