"""The first words on the pipe: who is no keeper is told so, and one of another version is left."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.keepers import TESTS, WORKER, keepers

import cluster_lock

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

LIBRARY = Path(cluster_lock.__file__).parent

PATH = os.pathsep.join([str(TESTS.parent), str(TESTS)])


def worker(number: str, *, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[str]:
    """A worker that believes that its keeper is at this number. It prints a sentence for what ends it."""
    return subprocess.Popen(
        [sys.executable, *WORKER],
        env={**os.environ, "PYTHONPATH": PATH, "INSTANCE": "a", "CLUSTER_LOCK_FD": number},
        pass_fds=pass_fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("number", ["", "abc", "-1", "0", "1", "99", "3.5", str(10**30)])
def test_no_pipe(number: str) -> None:
    """A CLUSTER_LOCK_FD that is no pipe from a keeper is one sentence and code 78."""
    with worker(number) as process:
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 78, said
    assert said.startswith(f"CLUSTER_LOCK_FD={number[:20]}: no pipe from a keeper ("), said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe garbage\n",
        b'{"event":' + 200_000 * b"[" + b"\n",
        b'{"event":"lease"\n',
        b'{"event":"lease","deadline":NaN,"now":0,"clock":"CLOCK_BOOTTIME"}\n',
        b'{"event":"lease","deadline":1,"now":1e11,"clock":"CLOCK_BOOTTIME"}\n',
        b'{"event":"lease","now":1}\n',
        b"null\n",
        b'{"cancel":[]}\n',
        b"",
        3_000_000 * b"x",
    ],
    ids=["garbage", "deep", "half", "nan", "future", "fields", "null", "cancel", "nothing", "long"],
)
def test_nobody_at_the_other_end(line: bytes) -> None:
    """Anybody who says something else than a keeper is left with one sentence and code 78, in bounded memory."""
    ours, theirs = socket.socketpair()
    with ours, theirs, worker(str(theirs.fileno()), pass_fds=(theirs.fileno(),)) as process:
        theirs.close()
        _, [number], _, _ = socket.recv_fds(ours, 100, 1)

        def speak() -> None:
            with socket.socket(fileno=number) as pipe, contextlib.suppress(OSError):  # it may have ended
                pipe.sendall(line)

        speaker = threading.Thread(target=speak)
        speaker.start()
        said, _ = process.communicate(timeout=300)
        speaker.join()
    assert process.returncode == 78, said
    assert "Traceback" not in said
    assert re.match(r"CLUSTER_LOCK_FD=\d+: no pipe from a keeper \(", said.splitlines()[-1]), said


async def test_an_upgrade_under_a_keeper(tmp_path: Path) -> None:
    """A keeper whose package was upgraded while it ran ends with 76 and a sentence when its worker has to be started
    again, and leaves its lock to the one that waits."""
    installed = tmp_path / "installed"
    shutil.copytree(LIBRARY, installed / "cluster_lock")
    shutil.copytree(TESTS / "support", installed / "support")
    async with keepers(tmp_path) as them:
        older = {"PYTHONPATH": str(installed)}
        first = await them.start("a", sys.executable, *WORKER, restart="always", environ=older)
        await first.says("a: leading")
        second = await them.worker("b")
        await second.says("waiting, held by a")
        home = installed / "cluster_lock" / "version.py"
        home.write_text(re.sub(r'__version__ = ".*"', '__version__ = "9.9.9"', home.read_text()))
        os.kill(first.below()[-1].pid, signal.SIGKILL)
        assert await first.ended() == 76
        assert "its worker 9.9.9: it was upgraded while the keeper ran" in first.output
        assert "Traceback" not in first.output
        await second.says("b: leading")
        assert "released {}" in second.output


async def test_a_command_after_an_upgrade(tmp_path: Path) -> None:
    """A keeper whose package was upgraded, or is gone, starts its command again as before."""
    installed = tmp_path / "installed"
    shutil.copytree(LIBRARY, installed / "cluster_lock")
    async with keepers(tmp_path) as them:
        script = "echo up; until [ -e go ]; do sleep 0.02; done; exit 3"
        keeper = await them.start(
            "a", "sh", "-c", script, lock="x", restart="on-failure", environ={"PYTHONPATH": str(installed)}
        )
        await keeper.says("up")
        shutil.rmtree(installed)
        (tmp_path / "go").touch()
        await keeper.says("up", times=2)
        keeper.signal(signal.SIGTERM)
        await keeper.ended()
