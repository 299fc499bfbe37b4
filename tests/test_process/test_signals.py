"""ShutdownManager in real processes that get real signals."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from support.program import Program

from cluster_lock import clock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent with kill")

START = """
import asyncio, os, signal, sys, threading, time
from cluster_lock.process import ShutdownManager

async def hang():
    print("hanging")
    await asyncio.Event().wait()

def block():
    print("blocking")
    while True:  # a single sleep, if it begins right after a signal came, is not interrupted by it
        time.sleep(0.1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leads_to_an_orderly_end(number: signal.Signals) -> None:
    """After SIGTERM or SIGINT the callbacks run, last in first out, and the program ends by itself with 0."""
    source = """
async def main():
    async with ShutdownManager() as manager:
        manager.register_signals()
        manager.register_callback(lambda: print("first"))
        manager.register_callback(lambda: print("second"))
        print("ready")
        print((await manager.wait()).name)

asyncio.run(main())
"""
    with Program(START + source) as program:
        assert program.line() == "ready"
        os.kill(program.pid, number)
        assert program.end() == 0
        assert program.rest() == [number.name, "second", "first"]


def test_a_signal_before_the_wait_is_not_lost() -> None:
    """A signal that comes while the program is still starting ends the wait that comes after it."""
    source = """
async def main():
    async with ShutdownManager() as manager:
        manager.register_signals()
        print("ready")
        sys.stdin.readline()
        print((await manager.wait()).name)

asyncio.run(main())
"""
    with Program(START + source) as program:
        assert program.line() == "ready"
        os.kill(program.pid, signal.SIGTERM)
        program.tell("")
        assert program.end() == 0
        assert program.rest() == ["SIGTERM"]


def test_a_second_signal_hurries() -> None:
    """The second signal calls the hook at once, cuts what hangs, and still runs the rest."""
    source = """
async def main():
    manager = ShutdownManager(timeout=60, hurry=4, on_second_signal=lambda: print("hook"))
    manager.register_signals()
    manager.register_callback(lambda: print("rest"))
    manager.register_callback(hang)
    print("ready")
    await manager.wait()
    await manager.shutdown()
    print("over")

asyncio.run(main())
"""
    with Program(START + source) as program:
        assert program.line() == "ready"
        os.kill(program.pid, signal.SIGTERM)
        assert program.line() == "hanging"
        os.kill(program.pid, signal.SIGTERM)
        sent = clock.now()
        assert [program.line(), program.line(), program.line()] == ["hook", "rest", "over"]
        assert clock.now() - sent < 20  # not the 60 s of the callback
        assert program.end() == 0


def test_a_second_signal_can_cancel_the_work_before_the_shutdown() -> None:
    """A program that drains between the first signal and the shutdown is reached by the hook."""
    source = """
async def main():
    task = asyncio.current_task()
    async with ShutdownManager(on_second_signal=task.cancel) as manager:
        manager.register_signals()
        manager.register_callback(lambda: print("released"))
        print("ready")
        await manager.wait()
        print("draining")
        await asyncio.sleep(60)

try:
    asyncio.run(main())
except asyncio.CancelledError:
    print("cancelled")
"""
    with Program(START + source) as program:
        assert program.line() == "ready"
        os.kill(program.pid, signal.SIGTERM)
        assert program.line() == "draining"
        os.kill(program.pid, signal.SIGTERM)
        assert program.end() == 0
        assert program.rest() == ["released", "cancelled"]


def test_a_blocked_loop_does_not_outlive_a_second_signal() -> None:
    """Where something blocks the loop for good, the second signal ends the process hard, soon after."""
    source = """
async def main():
    manager = ShutdownManager(hurry=0.3)
    manager.register_signals()
    print("ready")
    block()

asyncio.run(main())
"""
    with Program(START + source) as program:
        assert [program.line(), program.line()] == ["ready", "blocking"]
        os.kill(program.pid, signal.SIGINT)
        os.kill(program.pid, signal.SIGTERM)
        assert program.end() in (128 + signal.SIGTERM, 128 + signal.SIGINT)


@pytest.mark.parametrize("first_ends", [True, False])
def test_two_managers_of_one_program_both_hear(first_ends: bool) -> None:
    """Of two that listen in one program each hears a signal, whichever ends first, and when both have ended the signal
    means what it meant before."""
    source = f"""
async def main():
    before = signal.getsignal(signal.SIGINT)  # asyncio's own
    one, two = ShutdownManager(), ShutdownManager()
    one.register_signals()
    two.register_signals()
    print("ready")
    print((await one.wait()).name, (await two.wait()).name)
    for each in {"(one, two)" if first_ends else "(two, one)"}:
        await each.shutdown()
    print(signal.getsignal(signal.SIGTERM).name, signal.getsignal(signal.SIGINT) == before)

asyncio.run(main())
"""
    with Program(START + source) as program:
        assert program.line() == "ready"
        os.kill(program.pid, signal.SIGTERM)
        assert program.end() == 0
        assert program.rest() == ["SIGTERM SIGTERM", "SIG_DFL True"]


def test_a_manager_that_has_ended_leaves_the_signals_to_another_one() -> None:
    """The end of one of two does not take the signals from the other."""
    source = """
async def main():
    one, two = ShutdownManager(), ShutdownManager()
    one.register_signals()
    two.register_signals()
    await one.shutdown()
    print("ready")
    print((await two.wait()).name)
    await two.shutdown()

asyncio.run(main())
"""
    with Program(START + source) as program:
        assert program.line() == "ready"
        os.kill(program.pid, signal.SIGTERM)
        assert program.end() == 0
        assert program.rest() == ["SIGTERM"]


@pytest.mark.parametrize("first_ends", [True, False])
def test_the_loop_is_woken_as_long_as_anybody_listens(first_ends: bool) -> None:
    """The end of one of two takes away nothing that wakes the loop for the other, also where a loop before this one was
    left with somebody listening; the end of the last one does."""
    source = f"""
def wakes():
    number = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(number)
    return number >= 0

async def forgotten():
    ShutdownManager().register_signals()

async def main():
    one, two = ShutdownManager(), ShutdownManager()
    one.register_signals()
    two.register_signals()
    print(wakes())
    for each in {"(one, two)" if first_ends else "(two, one)"}:
        await each.shutdown()
        print(wakes())

for first in (forgotten, main, main):
    asyncio.run(first())
"""
    with Program(START + source) as program:
        assert program.end() == 0
        assert program.rest() == ["True", "True", "False"] * 2


@pytest.mark.parametrize("seconds", [60, 0])
def test_a_signal_when_all_is_done(seconds: int) -> None:
    """A program that has stopped, and is about to end, ends with its own code although another signal comes; when its
    time for that is over, the signal ends it."""
    source = f"""
from cluster_lock.process.signals import ignore_more

class Late:
    def __del__(self):  # when the interpreter has dropped its handlers
        print("ready")
        sys.stdin.readline()

ignore_more({seconds})
if {seconds}:
    late = Late()
else:
    print("ready")
    sys.stdin.readline()
"""
    with Program(START + source) as program:
        assert program.line() == "ready"
        os.kill(program.pid, signal.SIGTERM)
        if seconds:
            program.tell("go on")
        assert program.end() == (-signal.SIGTERM if seconds == 0 else 0)


def test_a_third_signal_ends_at_once() -> None:
    """Anybody who sends a third signal waits for nothing more."""
    source = """
async def main():
    manager = ShutdownManager(timeout=60, hurry=60, on_second_signal=lambda: print("hook"))
    manager.register_signals()
    manager.register_callback(hang)
    print("ready")
    await manager.wait()
    await manager.shutdown()

asyncio.run(main())
"""
    with Program(START + source) as program:
        assert program.line() == "ready"
        os.kill(program.pid, signal.SIGTERM)
        assert program.line() == "hanging"
        os.kill(program.pid, signal.SIGTERM)
        assert program.line() == "hook"
        os.kill(program.pid, signal.SIGTERM)
        assert program.end() == 128 + signal.SIGTERM


def test_a_sync_callback_that_blocks_does_not_keep_the_process() -> None:
    """A blocking callback is left behind, and neither the loop's end nor the interpreter's waits for its thread."""
    source = """
async def main():
    async with ShutdownManager(timeout=0.2) as manager:
        manager.register_callback(lambda: print("rest"), timeout=5)
        manager.register_callback(block)

asyncio.run(main())
"""
    with Program(START + source) as program:
        assert program.end(20) == 0
        assert program.rest() == ["blocking", "rest"]


def test_no_signal_waits_for_the_loop_to_wake_up() -> None:
    """A signal is heard at once, also one that comes right before a loop with nothing to do begins to wait: of some
    thousands, each sent in the moment in which the one before was answered, none is late."""
    source = """
from cluster_lock.process.signals import StopSignals

async def main():
    StopSignals(lambda number: print("heard")).install(asyncio.get_running_loop())
    print("ready")
    await asyncio.Event().wait()

asyncio.run(main())
"""
    with Program(START + source) as program:
        assert program.line() == "ready"
        for _ in range(5000):
            os.kill(program.pid, signal.SIGTERM)
            assert program.line() == "heard"


def test_afterwards_signals_do_what_they_did_before() -> None:
    """The end of the shutdown puts back the handlers that were there before it."""
    source = """
async def main():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    manager = ShutdownManager()
    manager.register_signals()
    manager.register_signals()
    await manager.shutdown()
    print(before == {number: signal.getsignal(number) for number in before})

asyncio.run(main())
"""
    with Program(START + source) as program:
        assert program.end() == 0
        assert program.rest() == ["True"]


def test_a_loop_in_another_thread_is_woken() -> None:
    """A program whose loop runs in a thread registers signals in its main thread, for that loop."""
    source = """
manager = None
ready = threading.Event()

async def main():
    global manager, loop
    loop = asyncio.get_running_loop()
    manager = ShutdownManager()
    manager.register_callback(lambda: print("closed"))
    ready.set()
    await manager.wait()
    await manager.shutdown()

thread = threading.Thread(target=lambda: asyncio.run(main()))
thread.start()
ready.wait()
manager.register_signals(loop)
print("ready")
while thread.is_alive():
    thread.join(0.1)  # Python calls handlers in the main thread, between two waits
"""
    with Program(START + source) as program:
        assert program.line() == "ready"
        os.kill(program.pid, signal.SIGTERM)
        assert program.end() == 0
        assert program.rest() == ["closed"]


def test_a_signal_after_the_loop_is_gone_ends_the_process() -> None:
    """A program that forgot to shut down, with its loop closed, still ends on the first signal."""
    source = """
async def main():
    ShutdownManager().register_signals()

asyncio.run(main())
print("ready")
while True:
    time.sleep(0.1)
"""
    with Program(START + source) as program:
        assert program.line() == "ready"
        os.kill(program.pid, signal.SIGTERM)
        assert program.end() == 128 + signal.SIGTERM
