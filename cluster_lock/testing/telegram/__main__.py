"""`python -m cluster_lock.testing.telegram --port N`: the simulator by itself, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence

from .control import Control
from .simulator import TelegramSimulator


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; 0 after a signal, 1 when the address cannot be had."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster_lock.testing.telegram",
        description=__doc__,
        epilog=_verbs(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--conflict", choices=["newest_wins", "sticky"], default="newest_wins")
    parser.add_argument("--front", choices=["cloud", "local"], default="cloud")
    options = parser.parse_args(arguments)
    simulator = TelegramSimulator(host=options.host, port=options.port, conflict=options.conflict, front=options.front)
    try:
        asyncio.run(_serve(simulator))
    except OSError as problem:
        print(f"cannot listen on {options.host}:{options.port}: {problem.strerror}", file=sys.stderr)
        return 1
    return 0


def _verbs() -> str:
    verbs = [f"  {verb} {arguments}" for verb, arguments in Control(TelegramSimulator()).help().items()]
    return "\n".join(
        [
            "To tell it something: POST /__sim/VERB with a JSON object of arguments. `bot` is a bot's id or token;",
            "/__sim/help has this list too.",
            "",
            """  curl -d '{"bot": 123456, "text": "hello", "chat_id": 7}' http://127.0.0.1:PORT/__sim/push""",
            """  curl -d '{"bot": 123456}' http://127.0.0.1:PORT/__sim/revoke     # refuse its token""",
            "",
            "verbs:",
            *verbs,
        ]
    ).replace("%", "%%")


async def _serve(simulator: TelegramSimulator) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stopped.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopped.set))
    async with simulator:
        print(json.dumps({"url": simulator.url, "pid": os.getpid()}), flush=True)
        await stopped.wait()


if __name__ == "__main__":
    sys.exit(main())
