"""deploy/try as its README says it: an image of one's own bot, five lines on top of ours, in two containers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from support.aio import until
from support.docker import CHECKOUT, Docker

from cluster_lock.testing.servers.base import free_ports
from cluster_lock.testing.telegram import SimulatorControl

pytestmark = pytest.mark.docker

TRY = CHECKOUT / "deploy/try"
IMAGE = "cluster-lock-local/mybot"
BOT = 4242
PACKAGE = "pathspec"
"""One that the local base image has a wheel of, and that no part of cluster-lock needs."""
SCRAPE = "import urllib.request as r; print(r.urlopen('http://{}:9876/metrics', timeout=5).read().decode())"


@pytest.fixture(scope="module")
def image(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> str:
    """That of a bot which needs a package more: the shipped Dockerfile and bot, on the local base."""
    folder = tmp_path_factory.mktemp("mybot") / "mybot"
    shutil.copytree(TRY / "mybot", folder)
    recipe = folder / "Dockerfile"
    recipe.write_text(recipe.read_text().replace("FROM cluster-lock-bot\n", "FROM cluster-lock-local/bot\n"))
    (folder / "requirements.txt").write_text(f"{PACKAGE}\n")
    main = folder / "main.py"
    main.write_text(main.read_text().replace("import socket\n", f"import socket\n\nimport {PACKAGE}\n"))
    (folder / ".env").write_text("TELEGRAM_BOT_TOKEN=of-the-folder\n")
    docker.run("docker", "build", "--quiet", "--tag", IMAGE, str(folder), variables={"DOCKER_BUILDKIT": "0"})
    return IMAGE


class Tried:
    """The deployment, with what the README says to put into .env."""

    def __init__(self, docker: Docker, image: str, file: str) -> None:
        self.docker = docker
        files = [TRY / file, CHECKOUT / "deploy/prometheus/compose.yaml"]
        files.append(CHECKOUT / "tests/test_deploy/compose.try.yaml")
        options = [part for each in files for part in ("--file", str(each))]
        self.command = ["docker", "compose", *options, "--project-name", f"cluster-lock-try-{os.getpid()}"]
        port = next(free_ports())
        self.telegram_url = f"http://127.0.0.1:{port}"
        self.variables = {
            "BOT_IMAGE": image,
            "TELEGRAM_IMAGE": docker.environment["BOT_IMAGE"],
            "TELEGRAM_BOT_TOKEN": f"{BOT}:a-token-for-the-simulated-telegram",
            "TELEGRAM_PORT": str(port),
            "CHECKOUT": str(CHECKOUT),
            "DIARIES": "/nowhere",
        }

    def compose(self, *arguments: str) -> str:
        return self.docker.run(*self.command, *arguments, timeout=150, variables=self.variables)

    def locks(self, service: str) -> dict[str, Any]:
        (lock,) = json.loads(self.compose("exec", "-T", service, "cluster-lock", "status", "--json"))["locks"]
        return dict(lock)


@pytest.fixture(params=["compose.yaml", pytest.param("compose.consul.yaml", marks=pytest.mark.slow)])
def tried(request: pytest.FixtureRequest, docker: Docker, image: str) -> Iterator[Tried]:
    tried = Tried(docker, image, request.param)
    try:
        tried.compose("up", "--detach", "telegram")
        tried.compose("up", "--detach", "--wait", "bot-1", "bot-2")
        yield tried
    finally:
        tried.compose("down", "--volumes", "--timeout", "1")


async def test_ones_own_bot_with_a_standby(tried: Tried) -> None:
    """The bot in the image of one's own answers, with the package that its Dockerfile installed; its health check
    follows `health` beyond loopback, where each of the two can be scraped; and when one is killed the other answers."""
    control = SimulatorControl(tried.telegram_url)
    try:
        leader = tried.locks("bot-1")["leader"]
        other = {"bot-1": "bot-2", "bot-2": "bot-1"}[leader]
        assert await answered_by(control, 1) == leader
        for asking, asked in ((leader, other), (other, leader)):
            metrics = tried.compose("exec", "-T", asking, "python", "-c", SCRAPE.format(asked))
            leads = f'cluster_lock_is_leader{{lock="telegram/{BOT}"}} {1.0 if asked == leader else 0.0}'
            assert leads in metrics
        assert tried.compose("exec", "-T", leader, "sh", "-c", "cat /app/.env || echo none").strip() == "none"
        await asyncio.to_thread(tried.compose, "kill", leader)
        assert await answered_by(control, 2) == other
    finally:
        await control.close()


async def answered_by(control: SimulatorControl, chat: int) -> str:
    """Which container answers a text in that chat: the shipped bot says its name."""
    await control.push(BOT, chat_id=chat, text="hello")
    found: list[str] = []

    async def answered() -> bool:
        calls = await control.calls("sendMessage")
        found.extend(str(call["arguments"]["text"]) for call in calls if int(call["arguments"]["chat_id"]) == chat)
        return bool(found)

    await until(answered)
    return found[0].partition(":")[0]
