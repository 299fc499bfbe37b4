"""A program that runs a command, and of which the keeper or the upper init dies as soon as it has killed one process.

    python -m support.first_blow keeper|upper [stopped]

It prints the numbers of all processes below it, then the one of the two that does not die so is killed. The lower init
is slow then, so that the other one is faster, and has all the time that it needs; or, `stopped`, it was stopped before.
Who kills a process prints `blow` before it dies.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import psutil

from cluster_lock.keeper import child, init

from .aio import until
from .running import below, command_of

COMMAND = 'sleep 3001 & setsid sh -c "sleep 3002 & sleep 3003" & wait'
SLEEPS = 3
LONG = 60.0
DIES = """
def _dies():
    if os.getpid() == dies:
        os.write(1, b"blow")
        os.kill(dies, signal.SIGKILL)
"""


async def main(who: str, *, stopped: bool) -> None:
    if who == "keeper":
        blow = init._kill

        def first_and_last(pid: int, number: int) -> None:
            blow(pid, number)
            print("blow", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        init._kill = first_and_last
    else:
        _replace("    upper, child = os", "    global dies\n    upper, child = dies, _ = os")
        _replace("        os.kill(pid, number)\n", "        os.kill(pid, number)\n        _dies()\n")
        _replace("def _kill(", f"{DIES}\n\ndef _kill(")
    _replace("    began = _now()\n", "    began = _now()\n    time.sleep(0 if leave else 0.03)\n")
    if not stopped:
        child.LEAVE = LONG  # type: ignore[attr-defined]
        _replace("LEAVE = 0.05", f"LEAVE = {LONG}")
    command = await child.Child.start(["sh", "-c", COMMAND], os.environ)
    await until(lambda: sum(command_of(each).startswith("sleep") for each in below(os.getpid())) == SLEEPS)
    upper, lower, *_ = found = below(os.getpid())
    print(*(each.pid for each in found), flush=True)
    if stopped:
        lower.suspend()
        await until(lambda: lower.status() == psutil.STATUS_STOPPED)
    os.kill(os.getpid() if who == "upper" else upper.pid, signal.SIGKILL)
    await command.wait()


def _replace(what: str, instead: str) -> None:
    assert what in child.INIT
    child.INIT = child.INIT.replace(what, instead)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], stopped="stopped" in sys.argv[2:]))
