"""One instance, of whichever version is on its path, that a test speaks with in lines of JSON.

    python member.py BACKEND ADDRESS PREFIX INSTANCE

It says `{"said": "leads", "token": 7, "at": 12.3}` and `ends`; it hears `look`, and `stop`. It uses only what version
0.1.0 has too.
"""

from __future__ import annotations

import asyncio
import json
import sys

import cluster_lock
from cluster_lock import clock
from cluster_lock.admin.overview import look
from cluster_lock.driver import Driver
from cluster_lock.drivers import driver_class
from cluster_lock.election import Election, Term
from cluster_lock.session import Session
from cluster_lock.values import Timing

TIMING = Timing(ttl=3.0, margin=1.0, stop_time=0.5, settle=0.25, invite=0.5, drain=1.0, cancel_grace=0.5)


def say(what: str, **more: object) -> None:
    print(json.dumps({"said": what, "at": clock.now(), **more}), flush=True)


async def lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def work(term: Term) -> None:
    say("leads", token=term.fencing_token, origin=term.origin)
    try:
        await term.wait_step_down()
    finally:
        say("ends", token=term.fencing_token)


async def main(backend: str, address: str, prefix: str, instance: str) -> None:
    def make() -> Driver:
        where = {"urls": [address]} if backend == "consul" else {"endpoints": [address]}
        return driver_class(backend)(**where, prefix=prefix, request_timeout=TIMING.request)

    onlooker = make()
    await onlooker.open()
    async with Session(make(), instance=instance, timing=TIMING) as session:
        election = Election(session)
        leading = asyncio.ensure_future(election.lead("x", work))
        say("version", version=cluster_lock.__version__, file=cluster_lock.__file__)
        commands = await lines()
        while line := (await commands.readline()).decode().strip():
            if line == "look":
                (seen,) = (await look(onlooker, request=TIMING.request)).locks
                leader = seen.record.instance if seen.record is not None else None
                say("sees", leader=leader, standbys=seen.standbys)
            else:
                election.stop(line)
                await leading
                break
    await onlooker.close()
    say("gone")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
