"""`python -m cluster_lock.keeper FD`: the keeper process. The command that read the settings becomes it."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys

from cluster_lock.errors import ClusterLockError

from .plan import Plan, received

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def main(arguments: list[str]) -> int:
    plan = received(int(arguments[0]))
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    try:
        return asyncio.run(_keep(plan))
    except ClusterLockError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


async def _keep(plan: Plan) -> int:
    assert sys.platform != "win32"
    from .keeping import keep

    gc.freeze()
    return await keep(plan)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
