"""The bot token is in nothing that a run with failures leaves behind or shows."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest
from support.aio import until
from support.bot_process import BotProcess, environment
from support.http import Stream, fetch
from support.running import below, command_of

from cluster_lock.testing.telegram import Fault, TelegramSimulator

TOKEN = "123456789:AAexample-Secret_Of-A-Botxxxxxxxxxx"
FAILED = 'cluster_lock_updates_total{bot="123456789",result="failed"} 3'
SECRET = TOKEN.partition(":")[2]

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="keepers are Linux's")]


async def test_nothing_tells_the_token(tmp_path: Path) -> None:
    """Not the logs of keeper and worker, their arguments, the keys and files, any page or metric, nor a traceback."""
    async with TelegramSimulator() as simulator:
        given = environment(tmp_path / "state", TELEGRAM_BOT_TOKEN=TOKEN)
        options = [f"telegram.api={simulator.url}", "health=127.0.0.1:0"]
        arguments = ["start", "--app", "support.indiscreet_bot:dispatcher", "--log-format", "json"]
        arguments += [part for option in options for part in ("--set", option)]
        process = BotProcess(*arguments, folder=tmp_path, environ=given)
        try:
            await asyncio.to_thread(process.wait_for, "polling, fencing token")
            url = re.findall(r"http://127\.0\.0\.1:[0-9]+(?=/)", process.output)[-1]
            simulator.inject(Fault(status=502, description=f"Bad Gateway for /bot{TOKEN}/getUpdates", times=2))
            simulator.inject(Fault(action="drop"))
            for _ in range(3):
                simulator.push(TOKEN)

            async def failed() -> bool:
                return FAILED in (await fetch(url, "/metrics")).text

            await until(failed)
            seen = await pages(url)
            assert json.loads(seen["/health"])["role"] == "leader"
            for one in [*below(process.pid), psutil.Process(process.pid)]:
                seen[f"arguments of {one.pid}"] = command_of(one)
            process.signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.end) == 0
        finally:
            process.signal(signal.SIGKILL)
        seen["the logs"] = process.output
        lines = [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]
        assert sum("sendMessage failed" in line.get("exception", "") for line in lines) == 3
        for path in (tmp_path / "state").rglob("*"):
            if path.is_file():
                seen[str(path)] = path.read_text(errors="replace") + path.name
        assert len(seen) > 10
        assert [where for where, text in seen.items() if SECRET in text] == []


async def pages(url: str) -> dict[str, str]:
    found = {path: (await fetch(url, path)).text for path in ("/", "/health", "/livez", "/readyz", "/metrics", "/x")}
    async with Stream(url, "/events") as stream:
        return {**found, "/events": json.dumps(await stream.event())}
