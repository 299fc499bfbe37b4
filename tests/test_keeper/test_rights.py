"""What a command may not do under a keeper, and what nobody finds on the disk when one crashes."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import pytest
from support.keepers import gone, keepers

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="Linux has no_new_privs")]

NOBODY = 65534
READS = "+dac_read_search"
ORDINARY = (
    *("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"),
    *("--inh-caps", READS, "--ambient-caps", READS),
)
"""An ordinary user, who may read whatever the tests need."""
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


def setuid_stat(folder: Path) -> Path:
    """A program of root's that says as whom it runs: `stat` of its own process."""
    program = folder / "setuid-stat"
    shutil.copy(shutil.which("stat") or "stat", program)
    program.chmod(0o4755)
    os.chown(folder, NOBODY, NOBODY)
    return program


@only_root
@pytest.mark.parametrize("allowed", [False, True], ids=["usual", "allowed"])
async def test_programs_of_other_users(tmp_path: Path, allowed: bool) -> None:
    """Under an ordinary user's keeper a setuid program does not run as root, unless that is allowed: the keeper could
    not end it."""
    async with keepers(tmp_path) as them:
        script = f"grep NoNewPrivs /proc/self/status; {setuid_stat(tmp_path)} -L -c 'uid %u' /proc/self/status"
        keeper = await them.start("a", "sh", "-c", script, lock="x", prefix=ORDINARY, allow_setuid=allowed)
        assert await keeper.ended() == 0, keeper.output
        assert f"NoNewPrivs:\t{0 if allowed else 1}\n" in keeper.output
        assert f"uid {0 if allowed else NOBODY}\n" in keeper.output


@only_root
async def test_root_ends_whatever_it_starts(tmp_path: Path) -> None:
    """Under root's keeper nothing is forbidden: it can end what runs as anybody."""
    async with keepers(tmp_path) as them:
        keeper = await them.start("a", "grep", "NoNewPrivs", "/proc/self/status", lock="x")
        assert await keeper.ended() == 0
        assert "NoNewPrivs:\t0\n" in keeper.output


@only_root
async def test_an_ordinary_users_keeper_finds_what_is_left(tmp_path: Path) -> None:
    """What an ordinary user's command leaves is ended, though its keeper may look into few processes."""
    async with keepers(tmp_path) as them:
        os.chown(tmp_path, NOBODY, NOBODY)
        keeper = await them.start(
            "a", "sh", "-c", "(setsid sleep 3001; true) & echo up; wait", lock="x", prefix=ORDINARY
        )
        await keeper.says("up")
        inits, below = keeper.inits(), keeper.below()
        keeper.signal(signal.SIGSTOP)
        for each in inits:
            each.kill()
        keeper.signal(signal.SIGKILL)
        await keeper.ended()
        last = await them.start("b", "true", lock="y", prefix=ORDINARY)
        assert await last.ended() == 0
        assert "ended what a keeper had left" in last.output
        assert await gone(below, 5) < 5


async def test_a_worker_leaves_no_core_dump(tmp_path: Path) -> None:
    """A keeper's own limit, and its worker's, leave no core dump; a command under a lock has the limit from before."""
    async with keepers(tmp_path) as them:
        keeper = await them.worker("a")
        await keeper.says("a: leading")
        worker = keeper.below()[-1]
        for pid in (keeper.pid, worker.pid):
            assert resource.prlimit(pid, resource.RLIMIT_CORE)[0] in (0, 1)
        keeper.signal(signal.SIGTERM)
        assert await keeper.ended() == 0
        before = await them.start("b", "sh", "-c", "echo limit $(ulimit -c)", lock="y", core=4096)
        assert await before.ended() == 0
        assert "limit 8\n" in before.output or "limit 4\n" in before.output
