"""`python -m cluster_lock.keeper FD`: the keeper process. The command that read the settings becomes it."""

from __future__ import annotations

import asyncio
import gc
import sys

from cluster_lock.errors import ClusterLockError
from cluster_lock.host import logs
from cluster_lock.process.core_dumps import no_core_dumps

from .plan import KeeperSpec, received
from .stopping import listen_no_more, remember


def main(arguments: list[str]) -> int:
    assert sys.platform != "win32"
    remember()
    no_core_dumps()
    plan = received(int(arguments[0]))
    logs.configure(plan.log_format, secrets=plan.secrets)
    try:
        return asyncio.run(_keep(plan))
    except ClusterLockError as error:
        logs.say_last(str(error))
        return error.exit_code


async def _keep(plan: KeeperSpec) -> int:
    from .keeping import keep

    gc.freeze()
    try:
        return await keep(plan)
    finally:
        listen_no_more()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
