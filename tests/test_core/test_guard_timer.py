"""The timer under the guard thread, in real processes that it kills."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest
from support.program import Program

from cluster_lock import clock
from cluster_lock.lease.kernel_timer import FaulthandlerTimer, KernelTimer, open_timer

HOLD_THE_GIL = "import re; re.match('(a+)+$', 'a' * 40 + 'b')"  # for hours

START = """
import os, sys, time
from cluster_lock import clock
from cluster_lock.lease.kernel_timer import FaulthandlerTimer, KernelTimer

def arm(timer, seconds):
    deadline = clock.now() + seconds
    print(deadline)  # first: from the timer on, a busy machine may leave no time for it
    timer.set(deadline)
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="kernel timers exist on Linux only")


def died_at_the_deadline(program: Program, code: int, *, stop: bool = False) -> None:
    deadline = float(program.line())
    if stop:
        assert program.line() == "armed"
        os.kill(program.pid, signal.SIGSTOP)
    assert program.end() == code
    assert program.ended_at is not None
    assert deadline <= program.ended_at < deadline + 2


@linux
def test_a_process_that_holds_the_gil_is_killed() -> None:
    """No Python code needs to run for a process to end at its deadline."""
    with Program(START + "timer = KernelTimer(); arm(timer, 0.5)\n" + HOLD_THE_GIL) as program:
        died_at_the_deadline(program, -signal.SIGKILL)


@linux
def test_a_process_that_holds_the_gil_in_c_is_killed() -> None:
    """A library that blocks in C without giving up the GIL does not outlive the deadline."""
    source = "timer = KernelTimer(); arm(timer, 0.5)\nimport ctypes; ctypes.PyDLL(None).sleep(60)"
    with Program(START + source) as program:
        died_at_the_deadline(program, -signal.SIGKILL)


@linux
def test_a_stopped_process_is_dead_before_it_is_woken() -> None:
    """A process under SIGSTOP dies at the deadline, without a SIGCONT."""
    with Program(START + "timer = KernelTimer(); arm(timer, 1.0); print('armed')\nsys.stdin.read()") as program:
        died_at_the_deadline(program, -signal.SIGKILL, stop=True)


@linux
def test_blocked_signals_do_not_help() -> None:
    """A program that blocks every signal it can dies at the deadline."""
    source = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
timer = KernelTimer(); arm(timer, 0.5)
sys.stdin.read()
"""
    with Program(START + source) as program:
        died_at_the_deadline(program, -signal.SIGKILL)


@linux
def test_set_again_moves_it() -> None:
    """The last moment that was set counts, whether it is later or earlier than the one before."""
    source = """
timer = KernelTimer()
timer.set(clock.now() + 1.0)
timer.set(clock.now() + 60)
time.sleep(1.2)
arm(timer, 0.3)
sys.stdin.read()
"""
    with Program(START + source) as program:
        died_at_the_deadline(program, -signal.SIGKILL)


@linux
@pytest.mark.parametrize("moment", ["clock.now() - 5", "0.0", "-1.0"])
def test_a_moment_that_is_over_kills_at_once(moment: str) -> None:
    """A deadline that has passed is not mistaken for none."""
    with Program(START + f"KernelTimer().set({moment})\nprint('alive')\nsys.stdin.read()") as program:
        assert program.end() == -signal.SIGKILL
        assert program.rest() == []


@linux
@pytest.mark.parametrize("verb", ["cancel", "close"])
def test_a_cancelled_timer_kills_nobody(verb: str) -> None:
    """After cancel or close the moment passes and the process lives; both may be repeated."""
    source = f"""
timer = KernelTimer()
arm(timer, 1.0)
timer.{verb}(); timer.{verb}()
time.sleep(1.2)
print("alive")
"""
    with Program(START + source) as program:
        program.line()
        assert program.line() == "alive"
        assert program.end() == 0


@linux
def test_a_forked_child_has_a_timer_of_its_own() -> None:
    """A fork inherits no timer, cannot disturb its parent's, and what it sets ends the child alone."""
    source = """
timer = KernelTimer()
timer.set(clock.now() + 1.0)
child = os.fork()
if child == 0:
    timer.cancel()
    time.sleep(1.2)
    timer.set(clock.now() + 0.2)
    time.sleep(60)
timer.set(clock.now() + 60)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    with Program(START + source) as program:
        assert program.line() == str(-signal.SIGKILL)
        assert program.end() == 0


@linux
def test_a_program_that_is_executed_is_not_hit() -> None:
    """exec leaves the timer behind."""
    source = "timer = KernelTimer(); arm(timer, 1.0)\nos.execvp('sh', ['sh', '-c', 'sleep 1.3; echo alive'])"
    with Program(START + source) as program:
        program.line()
        assert program.line() == "alive"


def unshare() -> list[str]:
    command = ["unshare", "--pid", "--fork", "--kill-child"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], capture_output=True, timeout=300).returncode
    ):
        pytest.skip("no pid namespace may be made here")
    return command


@linux
def test_process_1_of_a_container_ends_too() -> None:
    """The first process of a pid namespace, which the kernel shields from SIGKILL from inside, ends at its deadline."""
    source = "assert os.getpid() == 1\ntimer = KernelTimer(); arm(timer, 0.5)\n" + HOLD_THE_GIL
    with Program(START + source, prefix=unshare()) as program:
        died_at_the_deadline(program, signal.SIGRTMAX)


def test_without_a_kernel_timer_the_interpreter_ends_the_process() -> None:
    """Where the kernel offers no such timer, a process that holds the GIL still ends, with status 1."""
    with Program(START + "timer = FaulthandlerTimer(); arm(timer, 0.5)\n" + HOLD_THE_GIL) as program:
        died_at_the_deadline(program, 1)


def test_the_interpreters_timer_moves_and_is_cancelled() -> None:
    """The substitute is moved on and cancelled like the real one."""
    source = """
timer = FaulthandlerTimer()
timer.set(clock.now() + 1.0)
timer.set(clock.now() + 60)
time.sleep(1.2)
timer.set(clock.now() + 1.0)
timer.cancel()
time.sleep(1.2)
timer.close(); timer.close()
timer.set(clock.now() + 0.1)
time.sleep(0.3)
print("alive")
"""
    with Program(START + source) as program:
        assert program.line() == "alive"
        assert program.end() == 0


@linux
def test_the_interpreters_timer_does_not_hang_a_forked_child() -> None:
    """A child that inherits an armed substitute neither waits for its parent's thread nor disturbs the parent."""
    source = """
timer = FaulthandlerTimer()
timer.set(clock.now() + 60)
child = os.fork()
if child == 0:
    timer.set(clock.now() + 60)
    timer.cancel()
    timer.close()
    os._exit(5)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
timer.cancel()
"""
    with Program(START + source) as program:
        assert program.line() == "5"
        assert program.end() == 0


@linux
def test_the_best_timer_here_is_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux the kernel's timer is taken, and the interpreter's only where the kernel refuses."""
    timer = open_timer()
    assert isinstance(timer, KernelTimer)
    timer.set(clock.now() + 60)
    timer.close()
    monkeypatch.setattr("cluster_lock.lease.kernel_timer._clock_id", lambda: 12345)
    substitute = open_timer()
    assert isinstance(substitute, FaulthandlerTimer)
    substitute.close()
