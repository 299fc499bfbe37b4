"""aiogram's own examples, those that poll: unchanged but for the line that polls, they do what they did."""

from __future__ import annotations

import os
import re
import shutil
import signal
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from support import aio
from support.examples import BOT, TOKEN, Example, Stages

from cluster_lock.testing.servers import ServerMissing
from cluster_lock.testing.telegram import TelegramSimulator

POLLS = re.compile(r"(\w+)\.(start_polling|run_polling)\(bot\)")

BEGINS = """\
import runpy

import cluster_lock.aiogram
from aiogram.client import telegram

# The server of each Bot that names none.
object.__setattr__(telegram.PRODUCTION, "base", {base!r})
runpy.run_path({program!r}, {{"cluster_lock": cluster_lock}}, "__main__")
"""


PERSON = {"id": 7, "is_bot": False, "first_name": "Ann"}
CHAT = {"id": 1, "type": "private", "first_name": "Ann"}
PAID = {
    "message": {
        "message_id": 9,
        "date": 0,
        "chat": CHAT,
        "from": PERSON,
        "successful_payment": {
            "currency": "XTR",
            "total_amount": 42,
            "invoice_payload": "demo",
            "telegram_payment_charge_id": "charge-1",
            "provider_payment_charge_id": "charge-2",
        },
    }
}
CHECKOUT = {
    "pre_checkout_query": {
        "id": "1",
        "from": PERSON,
        "currency": "XTR",
        "total_amount": 42,
        "invoice_payload": "demo",
    }
}
TAPPED = {"callback_query": {"id": "1", "from": PERSON, "chat_instance": "1", "data": "*"}}
EDITED = {
    "edited_message": {"message_id": 9, "date": 0, "edit_date": 1, "chat": CHAT, "from": PERSON, "text": "better"}
}
CONVERSATIONS: dict[str, list[tuple[str | dict[str, Any], str]]] = {
    "echo_bot.py": [("/start", "Hello, "), ("what is said", "what is said")],
    "multi_file_bot/bot.py": [("/start", "Hello, "), ("what is said", "what is said")],
    "error_handling.py": [
        ("/age old", "Error caught: InvalidAge"),
        ("/name", "Error `Invalid` caught"),
        ("/age 5", "Your age is 5"),
    ],
    "specify_updates.py": [("/start", "Tap me"), (TAPPED, "now I'm fine"), (EDITED, "Message was edited")],
    "stars_invoice.py": [("/start", "Demo invoice"), (CHECKOUT, "answerprecheckoutquery"), (PAID, "charge-1")],
    "finite_state_machine.py": [
        ("/start", "What's your name?"),
        ("Ann", "Nice to meet you, Ann!"),
        ("yes", "What programming language"),
        ("Python", "Ann, you like to write bots with Python"),
    ],
    "scene.py": [
        ("/start", "Start demo?"),
        ("demo", "What's your name?"),
        ("Ann", "Did you like to write bots?"),
        ("yes", "What language do you prefer?"),
        ("python", "makes my circuits light up"),
    ],
    "quiz_scene.py": [
        ("/start", "To start the quiz"),
        ("/quiz", "What is the capital of France?"),
        ("Paris", "What is the capital of Spain?"),
        ("\N{NO ENTRY SIGN} Exit", "Your answers:"),
    ],
}
"""What happens, a message's text or a whole update, and a part of the answer, which may be in the log, too."""


@pytest.fixture
def examples(checkout: Path) -> Path:
    """The examples of the installed aiogram. When that is newer than what is locked, of the newest that is there."""
    tools = Path(os.environ.get("CLUSTER_LOCK_TOOLS", checkout / ".tools"))
    found = sorted((tools / "aiogram").glob("*"), key=lambda path: Version(path.name))
    if not found:
        raise ServerMissing("aiogram's examples are not there: run scripts/install-examples")
    return next((path for path in found if path.name == version("aiogram")), found[-1])


def test_each_that_polls_is_tried(examples: Path) -> None:
    """No example that polls is left out."""
    polling = {
        str(path.relative_to(examples)) for path in examples.rglob("*.py") if POLLS.search(path.read_text("utf-8"))
    }
    assert polling == CONVERSATIONS.keys()


@pytest.mark.process
@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_an_example_with_one_line_changed(name: str, examples: Path, stage: Stages, tmp_path: Path) -> None:
    """Each message gets the answer that the example gives, nothing is confirmed unanswered, and SIGTERM ends it."""
    shutil.copytree(examples, tmp_path / "examples")
    program = tmp_path / "examples" / name
    text, count = POLLS.subn(r"cluster_lock.aiogram.\2(\1, bot)", program.read_text("utf-8"))
    assert count == 1
    program.write_text(text, "utf-8")
    launcher = program.with_name("launcher.py")
    async with TelegramSimulator(strict=True) as simulator:
        base = simulator.url + "/bot{token}/{method}"
        launcher.write_text(BEGINS.format(base=base, program=str(program)), "utf-8")
        with stage(str(launcher), BOT_TOKEN=TOKEN, CLUSTER_LOCK_HEALTH="off") as it:
            example = await it.start("a")
            for happens, answer in CONVERSATIONS[name]:
                if isinstance(happens, str):
                    simulator.push(BOT, text=happens)
                else:
                    simulator.push_raw(BOT, happens)
                await aio.until(partial(answered, answer, simulator, example))
            example.send(signal.SIGTERM)
            assert await example.ended() == 0
        assert simulator.oracle.report().pending == 0


def answered(answer: str, simulator: TelegramSimulator, example: Example) -> bool:
    """Whether the bot has sent this, or logged it."""
    return answer in example.output or any(answer in f"{call.method} {call.arguments}" for call in simulator.calls())
