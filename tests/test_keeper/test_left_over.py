"""Keeper and inits are killed together: nobody is left to end what the command started, so the next keeper does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.aio import PATIENCE, run
from support.bot_process import TOKEN
from support.keepers import WORKER, KeeperProcess, Keepers, gone, keepers
from support.running import command_of

from cluster_lock import clock
from cluster_lock.keeper.left_over import HOPELESS, end_left_over, mark
from cluster_lock.keeper.names import MARK
from cluster_lock.process.instance_lock import process_started

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

FORKS = 'sleep 2001 & setsid sh -c "sleep 2002; true" & echo up; wait'
LOOKS = 'for pid in $(cat left); do grep "^State:.[^Z]" /proc/$pid/status && echo "beside $pid"; done; echo looked'


async def forking(them: Keepers, folder: Path, instance: str, lock: str) -> tuple[KeeperProcess, list[psutil.Process]]:
    """A keeper, and two processes that its command has started. Their numbers are in the file `left`."""
    keeper = await them.start(instance, "sh", "-c", FORKS, lock=lock)
    await keeper.says("up")
    sleeps = await keeper.has_started("sleep", times=2)
    (folder / "left").write_text("\n".join(str(each.pid) for each in sleeps))
    return keeper, sleeps


async def kill_with_inits(keeper: KeeperProcess) -> None:
    inits = keeper.inits()
    keeper.signal(signal.SIGSTOP)  # or it would do what its inits did
    for each in inits:
        each.kill()
    keeper.signal(signal.SIGKILL)
    await keeper.ended()


async def test_the_next_command_is_alone(tmp_path: Path) -> None:
    """What a keeper left that was killed together with its inits is gone before the next command of that host starts;
    that one's keeper stood by."""
    async with keepers(tmp_path) as them:
        first, sleeps = await forking(them, tmp_path, "a", "x")
        second = await them.start("b", "sh", "-c", LOOKS, lock="x")
        await second.says("waiting, held by a")
        await kill_with_inits(first)
        assert all(each.is_running() for each in sleeps)
        assert await second.ended() == 0
        assert "looked\n" in second.output
        assert "beside" not in second.output


async def test_what_is_left_when_the_lock_is_handed_over(tmp_path: Path) -> None:
    """What a keeper left is gone before a command starts whose keeper was given the lock by another one."""
    async with keepers(tmp_path) as them:
        first, _ = await forking(them, tmp_path, "a", "y")
        holder = await them.start("b", "sh", "-c", "echo holds; sleep 2003", lock="x")
        await holder.says("holds")
        heir = await them.start("c", "sh", "-c", LOOKS, lock="x")
        await heir.says("waiting, held by b")
        await kill_with_inits(first)
        holder.signal(signal.SIGTERM)
        assert await heir.ended() == 0
        assert "handed over" in heir.output or "lock released" in heir.output
        assert "looked\n" in heir.output
        assert "beside" not in heir.output


async def test_a_new_keeper_ends_it(tmp_path: Path) -> None:
    """A keeper that is started ends at once what another one left, and leaves alone what belongs to one that lives."""
    async with keepers(tmp_path) as them:
        living, others = await forking(them, tmp_path, "c", "y")
        first, left = await forking(them, tmp_path, "a", "x")
        await kill_with_inits(first)
        last = await them.start("b", sys.executable, *WORKER)
        await last.says("ended what a keeper had left that is gone")
        assert await gone(left, 1) < 1
        assert all(each.is_running() for each in others)
        assert living.code is None


async def test_no_pattern_finds_an_init(tmp_path: Path) -> None:
    """The inits show in lists of processes neither this library nor Python nor the command, so anybody who kills by
    such a name leaves them, and they end the rest."""
    async with keepers(tmp_path) as them:
        keeper, _ = await forking(them, tmp_path, "a", "x")
        inits, below = keeper.inits(), keeper.below()
        assert len(inits) == 2
        assert [command_of(each) for each in inits] == 2 * [f"init of process {keeper.pid}"]
        found = [each for each in below if "cluster" in (text := command_of(each)) or "python" in text]
        assert found == []
        keeper.signal(signal.SIGKILL)
        assert await gone(below, 5) < 2


NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def own_mark(scope: str, keeper: str = "1", since: str = "1") -> dict[str, str]:
    """As of a keeper that is gone: process 1 began at another moment."""
    where = mark("").split(" ")[2]
    return {"PATH": os.environ["PATH"], MARK: f"{keeper} {since} {where} {scope}"}


@pytest.mark.parametrize("keeper", ["9" * 5000, "\u0661", "", "-1"], ids=["long", "arabic", "empty", "negative"])
def test_a_mark_that_says_nothing(tmp_path: Path, keeper: str) -> None:
    """A mark that no keeper has written, which any user of the host may set, stops no keeper and ends nothing."""
    stranger = subprocess.Popen(["sleep", "100"], env=own_mark("some", keeper))
    left = subprocess.Popen(["sleep", "100"], env=own_mark("some"))
    try:
        run(end_left_over("some"))
        assert left.wait(PATIENCE) == -signal.SIGKILL
        assert stranger.poll() is None
    finally:
        for each in (stranger, left):
            each.kill()
            each.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees another user's")
def test_another_user_delays_nobody() -> None:
    """Where another user starts marked processes again and again, a keeper of root ends what was there before, and
    goes on soon."""
    script = f'for i in 1 2 3 4 5 6 7 8; do while :; do {MARK}="$TEXT" sleep 100; done & done; wait'
    environ = own_mark("some")
    environ["TEXT"] = environ.pop(MARK)
    respawns = subprocess.Popen(
        [*NOBODY, "sh", "-c", script], env=environ, start_new_session=True, stderr=subprocess.DEVNULL
    )
    left = subprocess.Popen([*NOBODY, "sleep", "100"], env=own_mark("some"))
    try:
        began = clock.now()
        run(end_left_over("some"))
        assert clock.now() - began < HOPELESS / 2
        assert left.wait(PATIENCE) == -signal.SIGKILL
        assert respawns.poll() is None
    finally:
        os.killpg(respawns.pid, signal.SIGKILL)
        left.kill()
        respawns.wait()
        left.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a time namespace")
async def test_a_keeper_of_another_time(tmp_path: Path) -> None:
    """A keeper that counts the time since the start of the host otherwise ends nothing of one that lives."""
    async with keepers(tmp_path) as them:
        living, others = await forking(them, tmp_path, "a", "x")
        shifted = ("unshare", "-T", "--boottime", "100000", "--monotonic", "100000", "--fork", "--kill-child")
        other = await them.start("b", "sh", "-c", "exit 5", lock="y", prefix=shifted)
        assert await other.ended() == 5
        assert all(each.is_running() for each in others)
        assert living.code is None


@pytest.mark.parametrize("command", ["restart", "start --detach"])
async def test_nothing_goes_on_in_the_background_of_a_keeper(command: str, tmp_path: Path) -> None:
    """`bot restart` and `bot start --detach` below a keeper end with one sentence: what they start would end with it.
    An environment of their own hides no keeper."""
    async with keepers(tmp_path) as them:
        (tmp_path / "home").mkdir(mode=0o700)
        settings = f"TELEGRAM_BOT_TOKEN={TOKEN} CLUSTER_LOCK_STATE_DIR={tmp_path / 'home'}"
        bot = f"env -u {MARK} {settings} {sys.executable} -m bot {command} --set health=off --set telegram.api=http://127.0.0.1:1"
        keeper = await them.start("a", "sh", "-c", f"{bot}; exit $?", lock="x")
        assert await keeper.ended() == 78
        assert f"what runs under keeper {keeper.pid}, as this command does, ends together with it" in keeper.output
        assert "Traceback" not in keeper.output
        assert list((tmp_path / "home").iterdir()) == []


def test_whose_keeper_is_above() -> None:
    """A process is under the keeper that its environment names if that lives, and is above it."""
    ask = "from cluster_lock.keeper.left_over import keeper_above; print(keeper_above())"
    stranger = subprocess.Popen(["sleep", "100"])
    try:
        for pid, since, found in (
            (os.getpid(), None, os.getpid()),
            (os.getpid(), 1, None),
            (stranger.pid, None, None),
        ):
            environ = own_mark("some", str(pid), str(since or process_started(pid)))
            done = subprocess.run([sys.executable, "-c", ask], env=environ, capture_output=True, text=True, timeout=300)
            assert done.stdout == f"{found}\n", done.stderr
    finally:
        stranger.kill()
        stranger.wait()
