"""A stop signal reaches every process of a service, a session or a terminal: the work has its drain all the same, and
hears of it once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from support.aio import until
from support.keepers import KeeperProcess, Keepers, keepers

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

COUNTS = """
import signal, sys, time
heard = []
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), lambda number, _: heard.append(number))
print("up", flush=True)
while not heard:
    time.sleep(0.01)
time.sleep(0.7)
print("saved after", *(signal.Signals(number).name for number in heard), flush=True)
"""
"""A command that notes stop signals and needs a while to end."""

KILLS_ALL = """
trap 'trap "" TERM; kill -TERM 0; wait; echo all saved; exit 6' TERM
"$0" -c "$1" SIGTERM &
wait
"""
"""A script that passes SIGTERM on to its process group, in the usual way."""


def everybody(keeper: KeeperProcess) -> list[int]:
    """The keeper and all below it, as a service manager finds them."""
    return [keeper.pid, *(each.pid for each in keeper.below())]


def send(pids: list[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)


async def counting(them: Keepers, *names: str) -> KeeperProcess:
    keeper = await them.start("a", sys.executable, "-c", COUNTS, *names, lock="x")
    await keeper.says("up")
    return keeper


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
async def test_a_signal_to_every_process(tmp_path: Path, name: str) -> None:
    """A signal that every process gets ends no init, and the command hears it once, though the keeper passes it on."""
    async with keepers(tmp_path) as them:
        keeper = await counting(them, name)
        send(everybody(keeper), signal.Signals[name])
        assert await keeper.ended() == 0
        assert f"saved after {name}\n" in keeper.output


@pytest.mark.parametrize(
    "name", ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGRTMAX"]
)
async def test_no_signal_ends_an_init(tmp_path: Path, name: str) -> None:
    """A signal to both inits alone ends neither of them, nor the command, which still ends in good order."""
    async with keepers(tmp_path) as them:
        keeper = await counting(them, "SIGTERM")
        inits = keeper.inits()
        assert len(inits) == 2
        send([each.pid for each in inits], signal.SIGRTMAX if name == "SIGRTMAX" else signal.Signals[name])
        if name != "SIGTERM":  # which would be the command's, too
            keeper.signal(signal.SIGTERM)
            assert await keeper.ended() == 0
            assert "saved after SIGTERM\n" in keeper.output
        else:
            assert [each.is_running() for each in inits] == [True, True]


async def test_the_command_gets_its_signals_as_they_were(tmp_path: Path) -> None:
    """What the inits ignore has its effect on the command, but for what was ignored before there was a keeper."""
    async with keepers(tmp_path) as them:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            keeper = await them.start("a", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status", lock="x")
        finally:
            signal.signal(signal.SIGHUP, before)
        assert await keeper.ended() == 0
        assert f"SigIgn:\t{1 << (signal.SIGHUP - 1):016x}" in keeper.output
        assert f"SigBlk:\t{0:016x}" in keeper.output


async def test_a_script_that_signals_its_own_group(tmp_path: Path) -> None:
    """A script that passes SIGTERM on with `kill 0` ends in good order, with its children, and with its own code."""
    async with keepers(tmp_path) as them:
        keeper = await them.start("a", "sh", "-c", KILLS_ALL, sys.executable, COUNTS, lock="x")
        await keeper.says("up")
        keeper.signal(signal.SIGTERM)
        assert await keeper.ended() == 6
        assert "saved after SIGTERM\nall saved\n" in keeper.output


async def test_a_script_around_the_keeper(tmp_path: Path) -> None:
    """A script that starts `run` and passes SIGTERM on with `kill 0`, again and again, leaves the command its time."""
    async with keepers(tmp_path) as them:
        script = 'trap "kill 0; wait" TERM; "$@" & wait; wait'
        around = await them.start(
            "a",
            sys.executable,
            "-c",
            COUNTS,
            "SIGTERM",
            lock="x",
            prefix=["setsid", "-w", "sh", "-c", script, "sh"],
        )
        await around.says("up")
        around.signal(signal.SIGTERM)  # it has become the script
        # The script itself may come to its end by its own signals before.
        await until(lambda: "saved after" in around.output)
        assert "saved after SIGTERM\n" in around.output
        assert "Exception ignored" not in around.output


async def test_a_hang_up_while_it_waits(tmp_path: Path) -> None:
    """A `run` that still waits for its lock ends when its terminal is closed, with 129."""
    async with keepers(tmp_path) as them:
        first = await counting(them, "SIGTERM")
        second = await them.start("b", "true", lock="x")
        await second.says("waiting, held by a")
        second.signal(signal.SIGHUP)
        assert await second.ended() == 128 + signal.SIGHUP
        assert first.code is None


@pytest.mark.parametrize("keys", ["closes", "ctrl-c"])
async def test_a_terminal(tmp_path: Path, keys: str) -> None:
    """At a terminal the command reads what is typed; Ctrl-C reaches it once, and so does the end of the terminal."""
    reads = f"print('read', input(), flush=True)\n{COUNTS}"
    controller, terminal = os.openpty()
    try:
        async with keepers(tmp_path) as them:
            command = ("sh", "-c", 'exec "$@" >log 2>&1', "sh", sys.executable, "-c", reads, "SIGINT", "SIGHUP")
            keeper = await them.start("a", *command, lock="x", prefix=["setsid", "--ctty", "--wait"], stdio=terminal)
            os.close(terminal)
            said = tmp_path / "log"
            os.write(controller, b"hello\n")
            await until(lambda: said.exists() and "read hello\nup\n" in said.read_text())
            if keys == "closes":
                os.close(controller)
            else:
                os.write(controller, b"\x03")
            await keeper.ended()
            expected = "SIGHUP" if keys == "closes" else "SIGINT"
            assert said.read_text().endswith(f"saved after {expected}\n")
    finally:
        if keys != "closes":
            os.close(controller)
