"""`cluster-lock run`: the command runs while the lock is held, and nothing of it is left when it is not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from support.aio import PATIENCE, quickest, run, until
from support.backends import Backend
from support.keepers import FAST, TESTS, KeeperProcess, Keepers, gone, keepers
from support.running import command_of, name_of
from support.stores import SERVERS, TELL_ALL, Operator

from cluster_lock import clock
from cluster_lock.admin.step_down import ask_to_step_down
from cluster_lock.values import INVITE

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="subreapers are Linux's")]

FORKS = 'sleep 1001 & setsid sleep 1002 & (setsid sh -c "sleep 1003 & sleep 1004") & trap "" TERM; echo up; sleep 1005'
"""A command that forks, whose children leave its session, and that takes no notice of SIGTERM."""

LEADERLESS = """
import ctypes, subprocess, threading
threading.Thread(target=threading.Event().wait).start()
subprocess.Popen(["true"])
ctypes.CDLL(None).pthread_exit(None)
"""
"""A program whose first thread ends, so that it looks like a zombie, and lives; it has a true one, too."""
CLI = f"import sys; sys.path.insert(0, {str(TESTS.parent)!r}); from cluster_lock.cli import main; sys.exit(main())"


async def forking(them: Keepers, instance: str = "a") -> KeeperProcess:
    keeper = await them.start(instance, "sh", "-c", FORKS, lock="x")
    await keeper.says("up")
    sleeps = {f"sleep {number}" for number in range(1001, 1006)}
    await until(lambda: sleeps <= {command_of(each) for each in keeper.below()})
    return keeper


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)], ids=["well", "badly", "killed"]
)
async def test_the_exit_status_is_the_commands(tmp_path: Path, script: str, code: int) -> None:
    """`run` ends with the exit status of its command, 128 and the signal's number if one ended it."""
    async with keepers(tmp_path) as them:
        keeper = await them.start("a", "sh", "-c", script, lock="x")
        assert await keeper.ended() == code


@pytest.mark.parametrize(("length", "code"), [(100_000, 0), (200_000, 78)], ids=["run", "refused"])
async def test_a_long_command(tmp_path: Path, length: int, code: int) -> None:
    """A command line that the system can run is run, however long, and another one is refused in a sentence."""
    async with keepers(tmp_path) as them:
        keeper = await them.start("a", "sh", "-c", 'echo "length ${#1}"', "sh", length * "a", lock="x")
        assert await keeper.ended() == code, keeper.output
        assert ("length 100000\n" if code == 0 else "too long for this system") in keeper.output
        assert "Traceback" not in keeper.output


async def test_what_it_finds_in_its_environment(tmp_path: Path) -> None:
    """The command is told the lock's name, its fencing token, and the number of a pipe with the lease."""
    async with keepers(tmp_path) as them:
        script = 'echo "$CLUSTER_LOCK_NAME $CLUSTER_LOCK_FENCING_TOKEN"; read line <&$CLUSTER_LOCK_FD; echo "$line"'
        keeper = await them.start("a", "sh", "-c", script, lock="x")
        assert await keeper.ended() == 0
        assert "\nx 1\n" in f"\n{keeper.output}"
        assert '"event": "leader", "name": "x", "token": 1, "deadline": ' in keeper.output


NAMES = ("PYTHONPATH", "GRPC_VERBOSITY", "LC_CTYPE")
ECHO = 'echo "[${PYTHONPATH-unset}] [${GRPC_VERBOSITY-unset}] [${LC_CTYPE-unset}]"'
IMPORTED = """
import os, pathlib
found = dict(each.partition("=")[::2] for each in pathlib.Path("/proc/self/environ").read_text().split(chr(0)))
locale = found.get("LC_CTYPE", "unset")  # this interpreter may have set one for itself
print(*(f"[{value}]" for value in (*(os.environ.get(name, "unset") for name in NAMES), locale)), flush=True)
"""


RUN = ("run", "--lock", "x", "--set", "health=off", "--", "sh", "-c", ECHO)
BOT = ("bot", "start", "--set", "health=off", "--app", "shows:nothing")


@pytest.mark.parametrize(
    ("command", "value"),
    [(RUN, None), (RUN, ""), (RUN, "some"), (BOT, None), ((*BOT, "--in-process"), None)],
    ids=["run-unset", "run-empty", "run-set", "worker", "in-process"],
)
def test_what_we_need_in_the_environment_is_not_the_commands(
    tmp_path: Path, command: tuple[str, ...], value: str | None
) -> None:
    """A command, and the program of a bot, find the environment as it was given to us, also in the C locale, where an
    interpreter sets LC_CTYPE for all that it starts."""
    (tmp_path / "shows.py").write_text(f"NAMES = {NAMES[:2]}\n{IMPORTED}")
    environ = {name: text for name, text in os.environ.items() if name not in (*NAMES, "LANG", "LC_ALL")}
    environ |= {"CLUSTER_LOCK_STATE_DIR": str(tmp_path), "TELEGRAM_BOT_TOKEN": "4242:a-secret-that-is-never-shown"}
    environ |= {} if value is None else dict.fromkeys(NAMES, value)
    done = subprocess.run(
        [sys.executable, "-c", CLI, *command], capture_output=True, text=True, timeout=300, env=environ, cwd=tmp_path
    )
    expected = "unset" if value is None else value
    assert f"[{expected}] [{expected}] [{expected}]\n" in done.stdout, done.stdout + done.stderr


async def test_a_lock_that_was_found_free_is_settled_in(tmp_path: Path) -> None:
    """A command starts `settle` after its lock was found free and not before, and at once when the lock was given
    back."""
    async with keepers(tmp_path) as them:
        began = clock.now()
        script = "echo up; until [ -e go ]; do sleep 0.02; done"
        first = await them.start("a", "sh", "-c", script, lock="x", timing=replace(FAST, settle=4))
        await first.says("up")
        assert clock.now() - began >= 4
        second = await them.start("b", "echo", "mine", lock="x", timing=replace(FAST, settle=300))
        await second.says("waiting, held by a")
        (tmp_path / "go").touch()
        assert await second.ended() == 0
        assert "lock released" in second.output


async def test_a_stop_while_it_settles(tmp_path: Path) -> None:
    """SIGTERM ends a `run` that still settles with 143, and its command is not started."""
    async with keepers(tmp_path) as them:
        keeper = await them.start("a", "echo", "mine", lock="x", timing=replace(FAST, settle=300))
        await keeper.says("lock found free")
        keeper.signal(signal.SIGTERM)
        assert await keeper.ended() == 143
        assert "mine" not in keeper.output


async def test_one_at_a_time(tmp_path: Path) -> None:
    """A second `run` of the same lock waits, and runs its command when the first one's has ended; with --no-wait it
    ends with 75."""
    async with keepers(tmp_path) as them:
        first = await them.start("a", "sh", "-c", "echo up; until [ -e go ]; do sleep 0.02; done", lock="x")
        await first.says("up")
        refused = await them.start("c", "true", lock="x", wait=False)
        assert await refused.ended() == 75
        second = await them.start("b", "echo", "mine", lock="x")
        await second.says("waiting, held by a")
        assert "mine" not in second.output
        (tmp_path / "go").touch()
        assert await first.ended() == 0
        assert await second.ended() == 0
        assert "mine" in second.output


async def test_signals_are_passed_on(tmp_path: Path) -> None:
    """SIGUSR1 reaches the command; SIGTERM does too, and the end is the command's own."""
    async with keepers(tmp_path) as them:
        script = 'trap "echo one" USR1; trap "echo end; exit 4" TERM; echo up; while :; do sleep 0.05; done'
        keeper = await them.start("a", "sh", "-c", script, lock="x")
        await keeper.says("up")
        keeper.signal(signal.SIGUSR1)
        await keeper.says("one")
        keeper.signal(signal.SIGTERM)
        assert await keeper.ended() == 4
        assert "end" in keeper.output


async def test_what_was_ignored_stays_ignored(tmp_path: Path) -> None:
    """Under `nohup` SIGHUP ends neither the keeper nor its command."""
    async with keepers(tmp_path) as them:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            script = 'trap "echo one; exit 4" USR1; echo up; while :; do sleep 0.05; done'
            keeper = await them.start("a", "sh", "-c", script, lock="x")
        finally:
            signal.signal(signal.SIGHUP, before)
        await keeper.says("up")
        keeper.signal(signal.SIGHUP)
        keeper.signal(signal.SIGUSR1)
        assert await keeper.ended() == 4
        assert "one" in keeper.output


async def test_a_stop_while_it_waits(tmp_path: Path) -> None:
    """SIGTERM ends a `run` that still waits for its lock with 143."""
    async with keepers(tmp_path) as them:
        first = await forking(them)
        second = await them.start("b", "true", lock="x")
        await second.says("waiting, held by a")
        second.signal(signal.SIGTERM)
        assert await second.ended() == 143
        assert first.code is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a PID namespace")
async def test_a_stop_comes_early_to_process_1(tmp_path: Path) -> None:
    """SIGTERM that comes to process 1 of a container while it still reads its settings is not lost."""
    command = ("-m", "cluster_lock.cli", "run", "--lock", "x", "--set", "health=off", "--", "sleep", "1000")
    namespace = await asyncio.create_subprocess_exec(
        *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, *command),
        env={**os.environ, "PYTHONPATH": str(TESTS.parent), "CLUSTER_LOCK_STATE_DIR": str(tmp_path)},
        cwd=tmp_path,
    )
    try:
        first = psutil.Process(namespace.pid)
        await until(lambda: bool(first.children()))
        [one] = first.children()
        # unshare blocks the same ones for a moment, before it becomes our program.
        await until(
            lambda: (
                name_of(one) != "unshare" and "SigBlk:\t0000000000004002" in Path(f"/proc/{one.pid}/status").read_text()
            )
        )
        one.terminate()
        async with asyncio.timeout(PATIENCE):
            assert await namespace.wait() == 143
    finally:
        if namespace.returncode is None:
            namespace.kill()
            await namespace.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a PID namespace")
async def test_process_1_that_is_stopped(tmp_path: Path) -> None:
    """As process 1 of a container a keeper that is stopped outlives its deadline: the command ends all the same, before
    the server gives the lock away."""
    async with keepers(tmp_path) as them:
        namespace = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
        keeper = await them.start("a", "sh", "-c", FORKS, lock="x", prefix=namespace)
        await keeper.says("up")
        one, *below = keeper.below()
        command = [each for each in below if name_of(each) != "init"]
        one.suspend()
        assert await gone(command, 10) < FAST.ttl
        assert one.status() == psutil.STATUS_STOPPED


async def test_it_runs_once_whatever_is_asked_meanwhile(tmp_path: Path) -> None:
    """A command that ends while its keeper looks for an heir is not run again."""
    async with keepers(tmp_path) as them:
        script = 'echo up; trap "exit 5" USR1; while :; do sleep 0.02; done'
        first = await them.start("a", "sh", "-c", script, lock="x")
        await first.says("up")
        second = await them.start("b", "sleep", "1000", lock="x")
        await second.says("waiting, held by a")
        second.signal(signal.SIGSTOP)  # it answers no invitation
        async with them.session("operator") as operator:
            asking = asyncio.create_task(ask_to_step_down(operator, "x", by="a test", timeout=10))
            await until(lambda: them.stands(operator, INVITE + "x"))
            first.signal(signal.SIGUSR1)
            assert await first.ended() == 5
            assert first.output.count("up") == 1
            asking.cancel()


async def test_a_command_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """After the drain everything that the command started is killed, and only then the lock is free."""
    async with keepers(tmp_path) as them:
        keeper = await forking(them)
        below = keeper.below()
        waiting = await them.start("b", "echo", "mine", lock="x")
        await waiting.says("waiting, held by a")
        keeper.signal(signal.SIGTERM)
        await keeper.ended()
        assert await gone(below, 0.5) < 0.2
        assert await waiting.ended() == 0


async def test_a_lock_is_free_when_nothing_is_left(tmp_path: Path) -> None:
    """A command that ends leaves its lock to the next one only when nothing that it started is left."""
    async with keepers(tmp_path) as them:
        leaves = "setsid sleep 1006 & echo $! > left; echo up; until [ -e go ]; do sleep 0.02; done"
        first = await them.start("a", "sh", "-c", leaves, lock="x")
        await first.says("up")
        first.below()  # whatever becomes of them, they are killed in the end
        looks = 'if kill -0 "$(cat left)"; then echo something; else echo nothing; fi'
        second = await them.start("b", "sh", "-c", looks, lock="x")
        await second.says("waiting, held by a")
        (tmp_path / "go").touch()
        assert await second.ended() == 0
        assert "\nnothing\n" in second.output


@pytest.mark.parametrize("victims", ["keeper", "upper", "lower", "keeper and upper", "keeper and lower", "both inits"])
async def test_nothing_is_left(tmp_path: Path, victims: str) -> None:
    """Whichever two of the keeper and its two inits are killed, nothing that the command started is left."""
    async with keepers(tmp_path) as them:
        keeper = await forking(them)
        below = keeper.below()
        upper, lower = keeper.inits()
        for pid, name in ((keeper.pid, "keeper"), (upper.pid, "upper"), (lower.pid, "lower")):
            if name in victims or (victims == "both inits" and name != "keeper"):
                with suppress(ProcessLookupError):  # an init that heard of the first one is through already
                    os.kill(pid, signal.SIGKILL)
        assert await gone(below, 5) < 2


async def test_inits_that_are_stopped(tmp_path: Path) -> None:
    """Nothing that the command started is left when the keeper is killed whose inits were both stopped."""
    async with keepers(tmp_path) as them:
        keeper = await forking(them)
        below, inits = keeper.below(), keeper.inits()
        for each in inits:
            each.suspend()
        await until(lambda: all(each.status() == psutil.STATUS_STOPPED for each in inits))
        keeper.signal(signal.SIGKILL)
        assert await gone(below, 5) < 2


async def test_what_was_there_before_the_keeper_is_not_its_own(tmp_path: Path) -> None:
    """What a shell started before it became the keeper lives on when all of the command is ended, and nobody waits for
    it."""
    async with keepers(tmp_path) as them:
        helper = 'sh -c "sleep 1007; true" & exec "$0" "$@"'
        keeper = await them.start("a", "sh", "-c", FORKS, lock="x", prefix=("sh", "-c", helper))
        await keeper.says("up")
        below = keeper.below()
        others = [each for each in below if "sleep 1007" in command_of(each)]
        for each in keeper.inits():
            each.kill()
        assert await keeper.ended() == 137
        assert len(others) == 2
        assert [each for each in below if each.is_running()] == others


@pytest.mark.parametrize("ends", ["command", "keeper", "both inits"])
async def test_what_looks_like_a_zombie_is_not_left(tmp_path: Path, ends: str) -> None:
    """A process whose first thread has ended is gone, as all others are, when the command, its keeper or both inits
    end."""
    async with keepers(tmp_path) as them:
        script = '"$0" -c "$1" & echo $! > left; echo up; until [ -e go ]; do sleep 0.02; done'
        keeper = await them.start("a", "sh", "-c", script, sys.executable, LEADERLESS, lock="x")
        await keeper.says("up")
        left = psutil.Process(int((tmp_path / "left").read_text()))
        upper, lower, *_ = keeper.below()
        try:
            await until(lambda: left.status() == psutil.STATUS_ZOMBIE)
            if ends == "command":
                (tmp_path / "go").touch()
            elif ends == "keeper":
                keeper.signal(signal.SIGKILL)
            else:
                upper.kill()
                lower.kill()
            await until(lambda: not left.is_running())
            assert await keeper.ended() == {"command": 0, "keeper": -signal.SIGKILL, "both inits": 137}[ends]
        finally:
            with suppress(psutil.NoSuchProcess):
                left.kill()


async def test_a_stopped_keeper_ends_at_its_deadline(tmp_path: Path) -> None:
    """A keeper that is stopped is ended by the kernel at the lease's deadline, and takes everything along before the
    server gives the lock away."""
    async with keepers(tmp_path) as them:
        keeper = await forking(them)
        everything = [psutil.Process(keeper.pid), *keeper.below()]
        keeper.signal(signal.SIGSTOP)
        assert await gone(everything, 10) < FAST.ttl


@pytest.mark.parametrize("backend", TELL_ALL, indirect=True, scope="session")
def test_a_revoked_lease(backend: Backend, tmp_path: Path) -> None:
    """When an operator ends the lease, everything that the command started is gone within 250 ms."""

    async def end_lease() -> float:
        async with keepers(tmp_path, backend) as them:
            keeper = await forking(them)
            below = [each for each in keeper.below() if each not in keeper.inits()]
            operator = Operator(backend, them.prefix)
            await asyncio.to_thread(operator.end_lease, await them.lease("x"))
            return await gone(below, 5)

    assert run(quickest(end_lease, 0.25)) < 0.25


@pytest.mark.parametrize("backend", SERVERS, indirect=True, scope="session")
async def test_a_command_is_alone_after_a_revoked_lease(backend: Backend, tmp_path: Path) -> None:
    """When an operator ends the lease, the next command starts when nothing of the one before is left, though that
    takes no notice of SIGTERM. It may be that of the same keeper."""
    stays = 'echo $$ > first; trap "" TERM; echo up; while :; do sleep 0.01; done'
    looks = 'if kill -0 "$(cat first)"; then echo beside; else echo alone; fi'
    command = ("sh", "-c", f"if [ -e first ]; then {looks}; else {stays}; fi")
    async with keepers(tmp_path, backend) as them:
        first = await them.start("a", *command, lock="x")
        await first.says("up")
        second = await them.start("b", *command, lock="x", timing=replace(FAST, settle=2))
        await second.says("waiting, held by a")
        operator = Operator(backend, them.prefix)
        await asyncio.to_thread(operator.end_lease, await them.lease("x"))
        assert await second.ended() == 0
        assert "\nalone\n" in second.output
        assert "beside" not in first.output + second.output
