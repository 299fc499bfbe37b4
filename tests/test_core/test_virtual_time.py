"""The loop whose time jumps."""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster_lock import clock
from cluster_lock.testing.virtual_time import START, VirtualTimeError, block, run, suspend

pytestmark = pytest.mark.virtual


def test_time_passes_without_being_waited_for() -> None:
    """A day of sleeping takes no time, and both clocks show the day."""

    async def main() -> tuple[float, float]:
        loop, before = asyncio.get_running_loop(), clock.now()
        for _ in range(24):
            await asyncio.sleep(3600)
        return clock.now() - before, loop.time() - START

    begun = time.monotonic()
    assert run(main()) == (86400, 86400)
    assert time.monotonic() - begun < 10


def test_timers_fire_in_order_at_their_moment() -> None:
    """Timers of many tasks fire in the order of their moments, each exactly at its own."""
    fired: list[tuple[str, float]] = []

    async def after(name: str, delay: float) -> None:
        await asyncio.sleep(delay)
        fired.append((name, round(clock.now() - START, 6)))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for name, delay in (("c", 3.0), ("a", 0.1), ("b", 0.2), ("b2", 0.2), ("d", 1e5)):
                group.create_task(after(name, delay))

    run(main())
    assert fired == [("a", 0.1), ("b", 0.2), ("b2", 0.2), ("c", 3.0), ("d", 1e5)]


def test_timeouts_and_results_work_as_ever() -> None:
    """`asyncio.timeout` fires on virtual time, an exception of the main coroutine comes out, and so does its result."""

    async def main() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.sleep(31)
        assert clock.now() == START + 30
        return "done"

    async def fail() -> None:
        raise LookupError("mine")

    assert run(main()) == "done"
    with pytest.raises(LookupError, match="mine"):
        run(fail())


def test_the_end_of_the_loop_waits_for_no_thread() -> None:
    """A loop that was given an executor ends although nobody shuts the executor down, and no time passes for it."""

    class Hung(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            over.wait(10)
            super().shutdown(wait=wait, cancel_futures=cancel_futures)

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(Hung())

    over = threading.Event()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            run(main())
        finally:
            over.set()


def test_clock_is_real_again_afterwards() -> None:
    """The clock is the test's own while it runs, and the machine's again when it is over, however it ended."""

    async def main() -> None:
        assert not clock.is_real()
        raise LookupError

    with pytest.raises(LookupError):
        run(main())
    assert clock.is_real()


def test_blocked_loop_finds_the_time_gone() -> None:
    """While the loop is blocked time goes on and nothing runs; a timer that became due fires late."""

    async def main() -> list[float]:
        moments: list[float] = []
        asyncio.get_running_loop().call_later(1, lambda: moments.append(clock.now() - START))
        await asyncio.sleep(0.5)
        block(10)
        moments.append(clock.now() - START)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return moments

    assert run(main()) == [10.5, 10.5]


def test_suspended_machine_leaves_the_timers_behind() -> None:
    """Over a suspend the clock goes on and the loop's timers do not, as BOOTTIME and MONOTONIC do."""

    async def main() -> float:
        suspended = clock.now()
        suspend(3600)
        await asyncio.sleep(1)
        return clock.now() - suspended

    assert run(main()) == 3601


def test_deadlock_is_told_with_the_places() -> None:
    """When nothing can go on any more the test ends, and says which task waits where."""

    async def waits_for_nobody() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(waits_for_nobody(), name="forgotten")
        await task

    with pytest.raises(VirtualTimeError, match=r"(?s)wait for ever:\n.*forgotten: Event\.wait") as error:
        run(main())
    assert "locks.py" in str(error.value)


def test_endless_test_ends() -> None:
    """Work that never ends is cut off after `at_most` virtual seconds, and cleans up after itself in virtual time."""
    cleaned: list[float] = []

    async def main() -> None:
        try:
            for _ in itertools.count():
                await asyncio.sleep(5)
        finally:
            await asyncio.sleep(100)
            cleaned.append(clock.now() - START)

    with pytest.raises(VirtualTimeError, match="not done"):
        run(main(), at_most=3600)
    assert cleaned
    assert 3600 <= cleaned[0] <= 3710


def test_spinning_test_ends() -> None:
    """Work that goes round without letting time go on is found out."""

    async def main() -> None:
        for _ in itertools.count():
            await asyncio.sleep(0)

    with pytest.raises(VirtualTimeError, match="stands still"):
        run(main())


async def _connect() -> None:
    await asyncio.open_connection("127.0.0.1", 1)


async def _connect_socket() -> None:
    with socket.socket() as one:
        one.setblocking(False)
        await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", 1))


async def _serve() -> None:
    await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)


async def _resolve() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


async def _start_process() -> None:
    await asyncio.create_subprocess_exec(sys.executable, "-V")


async def _read_descriptor() -> None:
    asyncio.get_running_loop().add_reader(0, print)


@pytest.mark.parametrize("use", [_connect, _connect_socket, _serve, _resolve, _start_process, _read_descriptor])
async def test_sockets_are_refused(use: Callable[[], Awaitable[None]]) -> None:
    """Whatever waits for the world outside is refused with what to do instead."""
    with pytest.raises(VirtualTimeError, match="memory driver"):
        await use()


async def test_threads_are_refused() -> None:
    """A thread is refused by the name of what it was to run."""
    with pytest.raises(VirtualTimeError, match="call sleep directly"):
        await asyncio.to_thread(time.sleep, 1)
    with pytest.raises(VirtualTimeError, match="no threads"):
        await asyncio.get_running_loop().run_in_executor(None, print)


def test_virtual_moves_need_virtual_time() -> None:
    """Moving the time on a real loop is refused, not ignored."""

    async def main() -> None:
        for move in (block, suspend):
            with pytest.raises(VirtualTimeError, match="no virtual time"):
                move(1)

    asyncio.run(main())
