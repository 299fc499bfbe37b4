"""What `--app` may name, and what is said of the rest."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_lock.cli.start import load_app
from cluster_lock.errors import ConfigError


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


def refusal(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_app(name)
    [problem] = caught.value.problems
    assert "\n" not in problem
    return problem


def test_an_app_of_the_working_directory(folder: Path) -> None:
    """A module in the working directory is found, as by `python -m`, and an attribute of an attribute too."""
    (folder / "users_bot.py").write_text(
        "from aiogram import Dispatcher\nclass bots:\n    main = Dispatcher(name='mine')\n"
    )
    assert load_app("users_bot:bots.main").name == "mine"


def test_the_bot_of_the_template() -> None:
    """What `start` runs by default is there."""
    assert load_app("bot.app:dispatcher").sub_routers


@pytest.mark.parametrize("name", ["users_bot", "users_bot:", ":dispatcher", ""])
def test_not_a_name(name: str) -> None:
    """What is not MODULE:NAME is told how it looks."""
    assert "must be MODULE:NAME, such as mybot.main:dispatcher" in refusal(name)


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
