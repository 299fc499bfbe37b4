"""The guard thread, in real processes that it ends."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest
from support.program import Program

from cluster_lock import clock
from cluster_lock.lease.guard import EXIT_GUARD, Guard, NoGuard, _WatchedDeadline, process_guard
from cluster_lock.values import GUARD_BEFORE

WITH_TIMER = """
import asyncio, os, sys, time
from cluster_lock import clock
from cluster_lock.lease import guard
from cluster_lock.lease.guard import process_guard

def watch(seconds, what="the lock telegram/42"):
    deadline = clock.now() + seconds
    print(deadline)  # first: from the watch on, a busy machine may leave no time for it
    return process_guard().watch(deadline, what)
"""
START = f"""{WITH_TIMER}
class NoTimer:
    def set(self, deadline): ...
    def cancel(self): ...

guard.open_timer = NoTimer
"""
"""The thread alone: on a busy machine the timer under it may be first, at the deadline."""


def ended_by_the_guard(program: Program) -> None:
    deadline = float(program.line())
    assert program.end() == EXIT_GUARD == 70
    assert program.ended_at is not None
    assert deadline - GUARD_BEFORE <= program.ended_at < deadline + 2


def test_work_that_swallows_its_cancellation_is_ended() -> None:
    """A body that runs on after its cancellation, on a loop that is never blocked, ends with its process."""
    source = """
async def stubborn():
    while True:
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            print("swallowed")

async def main():
    watch(0.8)
    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0.1)
    task.cancel()
    await task

asyncio.run(main())
"""
    with Program(START + source) as program:
        ended_by_the_guard(program)
        assert "swallowed" in program.rest()
        assert "the lock telegram/42 still runs" in program.errors
        assert program.errors.count("\n") == 1


def test_a_blocked_loop_is_ended() -> None:
    """A handler that blocks the loop past the deadline ends with its process."""
    source = """
async def main():
    watch(0.6)
    time.sleep(60)

asyncio.run(main())
"""
    with Program(START + source) as program:
        ended_by_the_guard(program)


def test_work_in_a_thread_is_ended() -> None:
    """Work that went on in a thread after the loop gave it up ends with its process."""
    source = """
import threading
watch(0.6)
threading.Thread(target=time.sleep, args=(60,)).start()
"""
    with Program(START + source) as program:
        ended_by_the_guard(program)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_full_stderr_does_not_stop_the_guard(kind: str) -> None:
    """A stderr that takes nothing any more, with a logging handler stuck in it, delays the end by nothing."""
    source = """
import fcntl, logging, threading
logging.basicConfig(stream=sys.stderr)
flags = fcntl.fcntl(2, fcntl.F_GETFL)
fcntl.fcntl(2, fcntl.F_SETFL, flags | os.O_NONBLOCK)
try:
    while True:
        os.write(2, b"x" * 512)
except BlockingIOError:
    fcntl.fcntl(2, fcntl.F_SETFL, flags)
deadline = clock.now() + 0.8
print(deadline)
mine = process_guard().watch(deadline)
logging.error("this hangs, and holds the handler's lock")
"""
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        import socket

        ours, theirs = socket.socketpair()
        reader, writer = ours.detach(), theirs.detach()
    try:
        with Program(START + source, stderr=writer) as program:
            ended_by_the_guard(program)
    finally:
        os.close(reader)
        os.close(writer)


def test_the_flags_of_stderr_are_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """Anybody who shares our stderr finds it blocking, as it was, after the guard has opened its own way to it."""
    guard = Guard()
    watch = guard.watch(clock.now() + 60)
    assert os.get_blocking(2)
    watch.done()


def test_a_closed_stderr_does_not_stop_the_guard() -> None:
    """A process without a stderr is ended all the same."""
    with Program("import os; os.close(2)\n" + START + "watch(0.6)\ntime.sleep(60)") as program:
        ended_by_the_guard(program)


def test_last_words_go_where_stderr_was() -> None:
    """A number 2 that now belongs to somebody else's connection does not get the guard's line."""
    source = """
mine = watch(0.6)
os.close(2)
assert os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT) == 2
time.sleep(60)
"""
    with Program(START + source, "/dev/full") as program:
        ended_by_the_guard(program)
        assert "still runs" in program.errors


def test_done_in_time_lets_the_process_live() -> None:
    """Work that is over before its deadline costs nobody his process, neither by the thread nor by the kernel."""
    source = """
mine = watch(0.6)
mine.done()
mine.move(clock.now() + 0.1)
mine.done()
time.sleep(1.2)
print("alive")
"""
    with Program(START + source) as program:
        program.line()
        assert program.line() == "alive"
        assert program.end() == 0


def test_each_renewal_moves_the_end() -> None:
    """A process lives as long as its deadline is moved on, and ends by the last one."""
    source = """
mine = process_guard().watch(clock.now() + 1.5)
for _ in range(40):
    time.sleep(0.05)
    mine.move(clock.now() + 1.5)
deadline = clock.now() + 1.5
print(deadline)
mine.move(deadline)
time.sleep(60)
"""
    with Program(START + source) as program:
        ended_by_the_guard(program)


def test_many_works_are_moved_at_once() -> None:
    """Works that are renewed together live on, and one among them that is not moved still ends the process."""
    source = """
works = [process_guard().watch(clock.now() + 1.5) for _ in range(100)]
deadline = clock.now() + 2.0
print(deadline)
forgotten = process_guard().watch(deadline, "the forgotten")
for _ in range(4):
    time.sleep(0.1)
    with process_guard().together():
        for work in works:
            work.move(clock.now() + 60)
time.sleep(60)
"""
    with Program(START + source) as program:
        ended_by_the_guard(program)
        assert "the forgotten" in program.errors


def test_works_moved_at_once_are_killed_by_the_kernel_too() -> None:
    """After a joint renewal the kernel's timer stands at the new deadline, neither at the old one nor at none."""
    source = """
works = [process_guard().watch(clock.now() + 1.5) for _ in range(3)]
deadline = clock.now() + 2.0
print(deadline)
with process_guard().together():
    for work in works:
        work.move(deadline)
import re; re.match('(a+)+$', 'a' * 40 + 'b')
"""
    with Program(WITH_TIMER + source) as program:
        deadline = float(program.line())
        assert program.end() == (-signal.SIGKILL if sys.platform == "linux" else 1)
        assert program.ended_at is not None
        assert deadline <= program.ended_at < deadline + 2


def test_a_deadline_that_moves_nearer_is_kept() -> None:
    """A server that promises less than before is believed at once, though the thread slept for the later moment."""
    source = """
mine = process_guard().watch(clock.now() + 60)
time.sleep(0.2)
deadline = clock.now() + 0.3
print(deadline)
mine.move(deadline)
time.sleep(60)
"""
    with Program(START + source) as program:
        ended_by_the_guard(program)


def test_of_two_works_each_is_watched() -> None:
    """The end of one work disarms nothing for another, whichever deadline comes first."""
    source = """
first = process_guard().watch(clock.now() + 0.5, "the first")
second = watch(1.0, "the second")
first.done()
time.sleep(60)
"""
    with Program(START + source) as program:
        ended_by_the_guard(program)
        assert "the second" in program.errors


def test_a_forked_child_is_not_watched() -> None:
    """What a parent promised is not its child's to keep; work that the child starts itself is watched."""
    source = """
mine = process_guard().watch(clock.now() + 60)
time.sleep(0.1)
child = os.fork()
if child == 0:
    mine.move(clock.now() + 0.1)
    time.sleep(0.6)
    process_guard().watch(clock.now() + 0.4, "the child's own")
    time.sleep(60)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
mine.done()
"""
    with Program(START + source) as program:
        assert program.line() == str(EXIT_GUARD)
        assert program.end() == 0
        # A busy machine may keep the child from its last line: it waits 50 ms for it and not longer.
        told = [line for line in program.errors.splitlines() if "still runs" in line]
        assert all("the child's own" in line for line in told)
        assert len(told) <= 1


@pytest.mark.parametrize("watches", [True, False])
def test_a_forked_child_keeps_nothing_of_the_guard(watches: bool) -> None:
    """What the guard of a parent has open is closed in its child, and there is nothing to close where it watches
    nothing."""
    source = """
if WATCHES:
    mine = process_guard().watch(clock.now() + 60)
kept = process_guard()._stderr
child = os.fork()
if child == 0:
    try:
        os.fstat(-1 if kept is None else kept)
    except OSError:
        os._exit(process_guard()._stderr is not None or len(process_guard()._deadlines))
    os._exit(5)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
if WATCHES:
    mine.done()
"""
    with Program(START + source.replace("WATCHES", str(watches))) as program:
        assert program.line() == "0"
        assert program.end() == 0
        assert "Exception ignored" not in program.errors


def test_a_signal_handler_may_end_the_work_at_any_moment() -> None:
    """Ending the work inside of a signal handler, even in the middle of a renewal, leaves nothing armed."""
    source = """
import signal
signal.signal(signal.SIGALRM, lambda *_: mine.done())
mine = process_guard().watch(clock.now() + 20)
for _ in range(300):
    mine = process_guard().watch(clock.now() + 20)
    signal.setitimer(signal.ITIMER_REAL, 0.00005)
    for _ in range(20):
        mine.move(clock.now() + 20)
    signal.setitimer(signal.ITIMER_REAL, 0)
    mine.done()
guard = process_guard()
print(len(guard._deadlines))
"""
    with Program(START + source) as program:
        assert program.line() == "1"  # the very first, which was never ended by name
        assert program.end() == 0


def test_many_threads_may_move_and_end_works() -> None:
    """Works of many threads that come, move and go at once leave neither a deadline nor an armed timer behind."""
    guard = Guard()

    def work() -> None:
        for _ in range(100):
            watch = guard.watch(clock.now() + 60)
            watch.move(clock.now() + 61)
            watch.done()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert guard._deadlines == {}
    assert guard._armed_at is None


def test_one_thread_watches_all_works() -> None:
    """A second work that is watched starts no second thread."""

    def threads() -> int:
        return sum(thread.name == "cluster-lock-guard" for thread in threading.enumerate())

    guard, before = Guard(), threads()
    watches = [guard.watch(clock.now() + 60) for _ in range(3)]
    assert threads() == before + 1
    for watch in watches:
        watch.done()


class Woken(Exception):
    """Instead of a sleep."""


class NotingBell:
    """Notes for how long the guard would sleep."""

    def __init__(self) -> None:
        self.sleeps: list[float] = []

    def acquire(self, timeout: float = -1) -> bool:
        self.sleeps.append(timeout)
        raise Woken


def test_the_guard_looks_again_at_the_moment_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard sleeps until the moment of the end, but for half a second at most, and never for no time at all."""
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    guard, bell = Guard(), NotingBell()
    monkeypatch.setattr(guard, "_bell", bell)
    for left in (60.0, 0.25, 0.0001):
        guard._deadlines = {_WatchedDeadline(guard, "the work"): now + GUARD_BEFORE + left}
        with pytest.raises(Woken):
            guard._look()
    assert bell.sleeps == pytest.approx([0.5, 0.25, 0.001])


def test_an_idle_guard_sleeps() -> None:
    """A process that watches nothing any more is not woken by its guard."""
    source = """
mine = process_guard().watch(clock.now() + 0.3)
mine.done()
time.sleep(0.7)
switches = lambda: sum(int(open(f"/proc/self/task/{t}/status").read().split("voluntary_ctxt_switches:")[1].split()[0])
                       for t in os.listdir("/proc/self/task") if int(t) != os.getpid())
before = switches()
time.sleep(1.2)
print(switches() - before)
"""
    with Program(START + source) as program:
        assert program.line() == "0"
        assert program.end() == 0


def test_virtual_time_is_not_guarded() -> None:
    """Under a test's own clock nothing is armed: the kernel does not know that clock."""
    with clock.replaced(lambda: 5.0):
        guard = process_guard()
        assert isinstance(guard, NoGuard)
        watch = guard.watch(1.0)
        watch.move(2.0)
        watch.done()
    assert isinstance(process_guard(), Guard)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a stopped process ends when it is woken")
def test_below_the_thread_the_kernel_waits() -> None:
    """A process whose guard thread cannot run, because it is stopped, is dead before it could be woken."""
    with Program(WITH_TIMER + "watch(2.0)\nprint('watched')\nsys.stdin.read()") as program:
        deadline = float(program.line())
        assert program.line() == "watched"
        os.kill(program.pid, signal.SIGSTOP)
        assert program.end() == -signal.SIGKILL
        assert program.ended_at is not None
        assert program.ended_at >= deadline
