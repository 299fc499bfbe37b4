"""What `--app` and `--bot` may name, and what is said of the rest."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiogram import Bot, Dispatcher
from support.settings import load_text

from cluster_lock import cli
from cluster_lock.cli.app import load_app
from cluster_lock.errors import ConfigError

TOKEN = "4242:a-secret-that-is-never-shown"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, where a user's own module is found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("users_"):
            del sys.modules[name]


def made(folder: Path, name: str, bot: str | None = None) -> tuple[Dispatcher, Bot]:
    """What `bot start --app name --bot bot` runs with a token in the settings."""
    settings = load_text(folder, environ={"TELEGRAM_BOT_TOKEN": TOKEN})
    return asyncio.run(load_app(name, bot).made(settings))[:2]


def refusal(name: str, bot: str | None = None, *, folder: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        if folder is None:
            load_app(name, bot)
        else:
            made(folder, name, bot)
    [problem] = caught.value.problems
    assert "\n" not in problem
    return problem


def test_an_app_of_the_working_directory(folder: Path) -> None:
    """A module in the working directory is found, as by `python -m`, and an attribute of an attribute too."""
    (folder / "users_bot.py").write_text(
        "from aiogram import Dispatcher\nclass bots:\n    main = Dispatcher(name='mine')\n"
    )
    dispatcher, bot = made(folder, "users_bot:bots.main")
    assert (dispatcher.name, bot.token) == ("mine", TOKEN)


def test_the_bot_of_the_template() -> None:
    """What `start` runs by default is there."""
    assert load_app("bot.app:dispatcher").found.sub_routers


def test_a_function_says_what_start_polling_is_to_be_told(folder: Path) -> None:
    """Beside the Dispatcher, with a Bot or without, a function returns arguments of start_polling; but not those that
    the command has to say."""
    (folder / "users_f.py").write_text(
        "from aiogram import Dispatcher\n"
        "async def elected(): pass\n"
        "def create(): return Dispatcher(), {'on_elected': elected}\n"
        "def settle(): return Dispatcher(), {'config': 'other.yaml'}\n"
    )
    settings = load_text(folder, environ={"TELEGRAM_BOT_TOKEN": TOKEN})
    _, bot, arguments = asyncio.run(load_app("users_f:create").made(settings))
    assert (bot.token, list(arguments)) == (TOKEN, ["on_elected"])
    assert refusal("users_f:settle", folder=folder).endswith("config is the command's to say, and not the function's")


@pytest.mark.parametrize("name", ["users_bot", "users_bot:", ":dispatcher", ""])
@pytest.mark.parametrize("option", ["--app", "--bot"])
def test_not_a_name(option: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not MODULE:NAME is a wrong argument, before anything is started, and is told how it looks."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["bot", "start", "--app", "users_bot:dispatcher", option, name])
    assert ended.value.code == 2
    assert f"{option}: must be MODULE:NAME, such as mybot.main:dispatcher" in capsys.readouterr().err


def test_no_such_module() -> None:
    """A module that is not there is named, and so is the part of its path that is not."""
    assert refusal("users_none.main:dp") == "--app users_none.main:dp: there is no module users_none"


def test_no_such_name(folder: Path) -> None:
    """A module without that name in it."""
    (folder / "users_a.py").write_text("")
    assert refusal("users_a:dp") == "--app users_a:dp: users_a has no dp"


def test_not_a_dispatcher(folder: Path) -> None:
    """Something else than a Dispatcher is called what it is."""
    (folder / "users_b.py").write_text("from aiogram import Router\ndp = Router()\n")
    assert refusal("users_b:dp") == "--app users_b:dp: is a Router, and not an aiogram Dispatcher"


def test_a_module_that_lacks_another(folder: Path) -> None:
    """The module is there and imports one that is not: the missing one is named, not the user's."""
    (folder / "users_c.py").write_text("import users_no_such_library\n")
    assert "users_c needs the module users_no_such_library, which is not there" in refusal("users_c:dp")


def test_a_module_that_fails(folder: Path) -> None:
    """An error of the module itself is told with file and line, in one line."""
    (folder / "users_d.py").write_text("\n\nraise ValueError('one\\ntwo')\n")
    assert "users_d cannot be imported: ValueError: one two" in refusal("users_d:dp")
    assert "users_d.py:3)" in refusal("users_d:dp")


def test_a_module_that_is_not_python(folder: Path) -> None:
    """A syntax error is told with file and line."""
    (folder / "users_e.py").write_text("x = 1\ndef (\n")
    assert "users_e.py:2)" in refusal("users_e:dp")


MINE = """
import os
from aiogram import Bot, Dispatcher
from aiogram.client.default import DefaultBotProperties
bot = Bot("4242:a-secret-that-is-never-shown", default=DefaultBotProperties(parse_mode="HTML"))
dispatcher = Dispatcher()
def alone(): return Dispatcher(name="made")
def pair(): return dispatcher, bot
async def late(): return dispatcher, bot
def three(): return dispatcher, bot, bot
def number(): return 5
def fails(): Bot("no token")
other = Bot("4343:another-secret-that-is-never-shown")
renewed = Bot("4242:a-renewed-secret-that-is-never-shown")
"""


@pytest.fixture
def mine(folder: Path) -> Path:
    (folder / "users_mine.py").write_text(MINE)
    return folder


@pytest.mark.parametrize(
    ("app", "bot"),
    [("dispatcher", "bot"), ("pair", None), ("late", None), ("alone", "bot")],
    ids=["two names", "a function", "an async function", "a function of the Dispatcher alone"],
)
def test_the_users_own_bot_is_used_as_it_is(mine: Path, app: str, bot: str | None) -> None:
    """The Bot that the user made is the one that polls and answers, with its defaults and its session."""
    dispatcher, found = made(mine, f"users_mine:{app}", bot and f"users_mine:{bot}")
    assert found is sys.modules["users_mine"].bot
    assert found.default.parse_mode == "HTML"
    assert dispatcher.name == "made" if app == "alone" else dispatcher is sys.modules["users_mine"].dispatcher


def test_a_bot_that_is_not_used_is_said(mine: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A Bot beside the Dispatcher that --bot does not name is not used, and a warning says how it would be."""
    with caplog.at_level(logging.WARNING, "cluster_lock"):
        _, found = made(mine, "users_mine:dispatcher")
    assert found.default.parse_mode is None
    assert "--bot users_mine:bot" in caplog.text


@pytest.mark.parametrize(
    ("app", "bot", "says"),
    [
        ("dispatcher", "other", "the Bot is that of telegram/4343, and telegram.token that of telegram/4242"),
        ("dispatcher", "renewed", "the Bot of telegram/4242 has another token than telegram.token says"),
        ("pair", "bot", "--app users_mine:pair: returns a Bot, so leave --bot out"),
        ("three", None, "returned a tuple, and not a Dispatcher, (dispatcher, bot)"),
        ("number", None, "returned an int, and not a Dispatcher"),
        ("fails", None, "--app users_mine:fails: failed: TokenValidationError: Token is invalid!"),
        ("dispatcher", "dispatcher", "--bot users_mine:dispatcher: is a Dispatcher, and not an aiogram Bot"),
        ("dispatcher", "nobody", "--bot users_mine:nobody: users_mine has no nobody"),
    ],
)
def test_a_bot_that_cannot_be_meant(mine: Path, app: str, bot: str | None, says: str) -> None:
    """A Bot of another token, two of them, or none is refused by one sentence without a token in it."""
    said = refusal(f"users_mine:{app}", bot and f"users_mine:{bot}", folder=mine)
    assert says in said
    assert "secret" not in said


def test_the_place_of_an_error_is_in_the_users_code(mine: Path) -> None:
    """An error that a library raises is told with the user's own line that called it."""
    line = MINE.splitlines().index('def fails(): Bot("no token")') + 1
    assert f"users_mine.py:{line})" in refusal("users_mine:fails", folder=mine)


POLLS = """
import asyncio, threading
from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from cluster_lock import aiogram as guarded
dispatcher = Dispatcher()
nowhere = AiohttpSession(api=TelegramAPIServer.from_base("http://127.0.0.1:1"))
bot = Bot("4242:a-secret-that-is-never-shown", session=nowhere)
later = dispatcher.run_polling
async def theirs(): await dispatcher.start_polling(bot)
async def ours(): await guarded.start_polling(dispatcher, bot)
async def retries(): await guarded.PollingManager().start_polling_with_retry(dispatcher, bot)
def theirs_sync(): dispatcher.run_polling(bot)
def ours_sync(): guarded.run_polling(dispatcher, bot)
def task(): global left; left = asyncio.create_task(theirs()); return dispatcher
async def task_of_ours(): global left; left = asyncio.create_task(ours()); return dispatcher
def caught():
    try: theirs_sync()
    except BaseException: pass
def thread():
    it = threading.Thread(target=caught)
    it.start()
    it.join()
    return dispatcher
"""


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes with which the process would have been ended; afterwards nothing of aiogram is changed."""
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    return codes


@pytest.mark.parametrize(
    ("app", "what"),
    [
        ("theirs", "Dispatcher.start_polling"),
        ("theirs_sync", "Dispatcher.run_polling"),
        ("ours", "start_polling"),
        ("ours_sync", "run_polling"),
        ("retries", "start_polling"),
        ("task", "Dispatcher.start_polling"),
        ("task_of_ours", "start_polling"),
        ("thread", "Dispatcher.run_polling"),
    ],
)
def test_a_function_that_polls_is_refused(
    folder: Path, ends: list[int], capsys: pytest.CaptureFixture[str], app: str, what: str
) -> None:
    """A function that polls, itself or by a task or thread, would do so outside of the lock: the process ends with 78
    and a sentence that says what to write."""
    (folder / "users_polls.py").write_text(POLLS)
    before = dict(vars(Dispatcher))
    with suppress(SystemExit):
        made(folder, f"users_polls:{app}")
    assert ends == [78]
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"--app users_polls:{app}: calls {what} while it is loaded")
    assert "`cluster-lock run -- python main.py`" in line
    assert vars(Dispatcher) == before


@pytest.mark.parametrize("call", ["run(theirs())", "run(ours())"])
def test_a_module_that_polls_when_it_is_imported(
    folder: Path, ends: list[int], capsys: pytest.CaptureFixture[str], call: str
) -> None:
    """A program without a main guard is refused in the same way, also where it catches every Exception."""
    (folder / "users_unguarded.py").write_text(
        f"{POLLS}\ntry:\n    asyncio.{call}\nexcept Exception:\n    print('goes on')\n"
    )
    before = dict(vars(Dispatcher))
    with pytest.raises(SystemExit):
        load_app("users_unguarded:dispatcher")
    assert ends == [78]
    said = capsys.readouterr()
    assert "--app must name the Dispatcher" in said.err
    assert said.out == ""
    assert vars(Dispatcher) == before


def test_nothing_stays_refused(folder: Path, ends: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """When the app is loaded, or could not be, aiogram is as it was; what was taken from it meanwhile works, and what
    the app has put into its place stays."""
    (folder / "users_polls.py").write_text(POLLS)
    (folder / "users_fails.py").write_text("raise ValueError")
    (folder / "users_patches.py").write_text(
        "from aiogram import Dispatcher\ndispatcher = Dispatcher()\nDispatcher.run_polling = lambda self: 'mine'\n"
    )
    before = dict(vars(Dispatcher))
    load_app("users_polls:dispatcher")
    refusal("users_fails:dispatcher")
    assert vars(Dispatcher) == before
    with pytest.raises(ValueError, match="At least one bot"):
        sys.modules["users_polls"].later()
    monkeypatch.setattr(Dispatcher, "run_polling", Dispatcher.run_polling)  # is as it was after this test
    load_app("users_patches:dispatcher")
    assert Dispatcher().run_polling() == "mine"  # type: ignore[func-returns-value]
    assert ends == []
