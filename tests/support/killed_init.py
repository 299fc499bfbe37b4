"""A program that ends commands whose inits die at that very moment, and prints the exit statuses that it was told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from cluster_lock.keeper.child import INIT_LIMIT, Child

TIMES = 20


class Hasty(Child):
    """Gives its init no time."""

    async def ended_within(self, seconds: float) -> bool:
        return seconds != INIT_LIMIT and await super().ended_within(seconds)


async def main() -> None:
    for _ in range(TIMES):
        command = await Hasty.start(["sleep", "100"], os.environ)
        os.kill(command.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # a thread of asyncio was faster
            # asyncio must not see it yet.
            os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
        print(await command.end(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
