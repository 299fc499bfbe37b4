"""docs/from_aiogram.md: the code in it does what the page says."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from aiogram import Bot, Dispatcher
from support import aio
from support.polling import ClientBot

from cluster_lock.testing.telegram import TelegramSimulator


def snippets(checkout: Path) -> list[CodeType]:
    """The page's pieces of Python: the program, with its `await` outside of a function, and what --app may name."""
    codes = re.findall(r"```python\n(.*?)```", (checkout / "docs" / "from_aiogram.md").read_text("utf-8"), re.DOTALL)
    return [compile(code, "from_aiogram.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT) for code in codes]


async def test_the_scheduler_runs_where_the_bot_leads(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler of the page runs when the instance has been elected, and not any more when it has stopped."""
    pytest.importorskip("apscheduler")
    (tmp_path / "config.yaml").write_text("health: off\nfile:\n  directory: locks\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLUSTER_LOCK_STATE_DIR", str(tmp_path / "state"))
    async with TelegramSimulator() as simulator:
        dispatcher = Dispatcher(disable_fsm=True)

        async def send_digest(bot: Bot) -> None: ...

        names: dict[str, Any] = {
            "Any": Any,
            "Bot": Bot,
            "Dispatcher": Dispatcher,
            "dispatcher": dispatcher,
            "bot": ClientBot(simulator, "one"),
            "send_digest": send_digest,
        }
        program_code, factory_code = snippets(checkout)
        program = eval(program_code, names)
        assert inspect.iscoroutine(program)
        running = asyncio.ensure_future(program)
        await aio.until(lambda: running.done() or ("scheduler" in names and names["scheduler"].running))
        [job] = names["scheduler"].get_jobs()
        assert job.func is send_digest
        exec(factory_code, names, names)
        assert names["create"]()[2] == {"on_elected": names["elected"], "on_step_down": names["step_down"]}
        await dispatcher.stop_polling()
        await running
        assert not names["scheduler"].running
