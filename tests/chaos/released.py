"""Bots of a version that was released: what a rolling upgrade begins with. With the folder of another library in
CHAOS_OLDER, one of this repository's history, it is that one, on any backend that it knows."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

from support.diary_bot import DIARY
from support.hosts import HostedBot, Scene

from .kept import started

TESTS = Path(__file__).parents[1]
VERSION = "0.1.0"
OLDER = os.environ.get("CHAOS_OLDER", "")


class ReleasedBot(HostedBot):
    """Without a keeper, and not born in the nursery, which has this version."""


def launch_released(scene: Scene, host: int) -> ReleasedBot:
    """One instance more, of that version."""
    name = f"bot-{len(scene.bots) + 1}"
    diary, log = scene.folder / f"{name}.diary", scene.folder / f"{name}.log"
    path = os.pathsep.join([str(library(scene.folder)), str(TESTS)])
    environ = {**scene.environ(name, **{DIARY: str(diary)}), "PYTHONPATH": path}
    arguments = ["-m", "support.released_bot", "start", "--in-process", "--app", "support.diary_bot:dispatcher"]
    command = [*scene.network.hosts[host].wrapper, sys.executable, *arguments, *settings(scene)]
    bot = ReleasedBot(name, host, started(command, environ, log, scene.folder), diary)
    scene.bots.append(bot)
    return bot


def settings(scene: Scene) -> list[str]:
    """Its arguments. That version knows no time that is off: a handler's was five minutes then, by default."""
    given = [text for text in scene.settings()[1::2] if not text.endswith("=off")]
    return [part for text in given for part in ("--set", text)]


def library(folder: Path) -> Path:
    """Where that version is, unpacked below this folder if it is the released one."""
    if OLDER:
        return Path(OLDER)
    unpacked = folder / VERSION
    if not unpacked.exists():
        zipfile.ZipFile(TESTS / "released" / f"cluster_lock-{VERSION}-py3-none-any.whl").extractall(unpacked)
    return unpacked
