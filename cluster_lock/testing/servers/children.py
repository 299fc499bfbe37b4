"""Starts child processes that cannot outlive this one."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

_DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")

# PR_SET_PDEATHSIG fires when the *thread* that forked ends, not the process (prctl(2)): a server that was started in a
# worker thread would die with it. So one thread starts them all and lives as long as the process.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cluster-lock-servers")
_children: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()


def spawn(
    arguments: Sequence[str],
    output: IO[bytes],
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own (a Ctrl-C at the terminal is ours to handle), its output to a file.

    `environ`: its whole environment, `folder`: where it runs; by default ours.
    """

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_DIE_WITH_PARENT), str(os.getpid()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd=folder,
            start_new_session=True,
        )

    child = _starter.submit(start).result(timeout=30)
    _children.add(child)
    return child


@atexit.register
def _end_all() -> None:
    for child in list(_children):
        if child.poll() is None:
            child.kill()
            child.wait(timeout=5)
