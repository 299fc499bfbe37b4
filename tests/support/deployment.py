"""A deployment of deploy/ as it is shipped: its Compose file on local images, its scripts, its configuration; and a
simulated Telegram that judges what its bots do.

    with Deployment(docker, "etcd", folder) as deployment:
        async with deployment.watched() as watched:
            leader = await watched.settled()
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from pytest_docker.plugin import get_docker_services

from cluster_lock import clock
from cluster_lock.testing.servers.base import free_ports
from cluster_lock.testing.telegram import SimulatorControl

from .docker import CHECKOUT, Docker
from .watched import Watched

BOTS = ("bot-1", "bot-2")

TOOLS = {"etcd": "etcdctl", "consul": "consul"}
"""The service that has the backend's own tool and an operator's rights."""

Json = dict[str, Any]


class Deployment:
    """`backend`: etcd, consul or file. The servers run, with rights and tokens, and so do Telegram and both bots."""

    def __init__(self, docker: Docker, backend: str, folder: Path) -> None:
        self.docker = docker
        self.backend = backend
        self.folder = folder
        self.home = CHECKOUT / "deploy" / backend
        self.project = f"cluster-lock-test-{os.getpid()}-{backend}"
        self.files = [self.home / "compose.yaml", CHECKOUT / "tests/test_deploy/compose.test.yaml"]
        self.servers = [] if backend == "file" else [f"{backend}-{number}" for number in (1, 2, 3)]
        self.bot_id = 4242
        self.token = f"{self.bot_id}:a-token-for-the-simulated-telegram"
        port = next(free_ports())
        self.telegram_url = f"http://127.0.0.1:{port}"
        self.variables = {
            **docker.environment,
            "CERTS": str(folder / "certs"),
            "SECRETS": str(folder / "secrets"),
            "DIARIES": str(folder / "diaries"),
            "CHECKOUT": str(CHECKOUT),
            "TELEGRAM_PORT": str(port),
        }
        self._stack = ExitStack()
        self.tool = ""
        """A container in which the backend's own tool can be called, again and again."""

    # -- docker

    @property
    def command(self) -> list[str]:
        """`docker compose` for this deployment."""
        files = [part for file in self.files for part in ("--file", str(file))]
        return ["docker", "compose", *files, "--project-name", self.project]

    def compose(self, *arguments: str, timeout: float = 120, code: int = 0) -> str:
        return self.docker.run(*self.command, *arguments, timeout=timeout, variables=self.variables, code=code)

    def container(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service).strip()

    def state(self, service: str) -> Json:
        """What docker knows of the service's container: Status, Health, ExitCode, FinishedAt."""
        return dict(self.docker.inspect(self.container(service))["State"])

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail", "60", *BOTS)

    def __enter__(self) -> Self:
        for name in ("certs", "secrets", "diaries"):
            (self.folder / name).mkdir(parents=True)
        # The containers' user has no other right on a folder of the host.
        (self.folder / "diaries").chmod(0o777)
        (self.folder / "secrets/telegram_token").write_text(self.token)
        (self.folder / "secrets/telegram_token").chmod(0o444)
        with ExitStack() as stack:
            if self.servers:
                certs = str(self.folder / "certs")
                self.docker.run(str(CHECKOUT / "deploy/make-certs"), certs, self.backend)
            variables = stack.enter_context(pytest.MonkeyPatch.context())
            for name, value in self.variables.items():
                variables.setenv(name, value)  # what pytest-docker's own commands see
            # If the bring-up itself fails, pytest-docker leaves running what runs already.
            stack.callback(self.compose, "--profile", "tools", "down", "--volumes", "--timeout", "1")
            first = " ".join(["--wait", *self.servers] if self.servers else ["telegram"])
            stack.enter_context(
                get_docker_services(
                    "docker compose", [*map(str, self.files)], self.project, [f"up --detach {first}"], []
                )
            )
            self._give_rights()
            if self.servers:
                self.tool = self.compose(
                    "run", "--detach", "--no-deps", "--entrypoint", "busybox sleep 3600", TOOLS[self.backend]
                ).strip()
                stack.callback(self.docker.run, "docker", "rm", "--force", self.tool)
            self.compose("up", "--detach", "telegram", *BOTS)
            self._stack = stack.pop_all()
        return self

    def policy(self, name: str) -> str:
        """The rules of a policy file as set-up-acl fills them in."""
        rules = (self.home / name).read_text()
        for word, value in {"BOT_ID": str(self.bot_id), "INSTANCES": "bot-", "SESSION_NODE": "cluster-lock"}.items():
            rules = rules.replace(word, value)
        return rules

    def _give_rights(self) -> None:
        command = shlex.join(self.command)
        if self.backend == "consul":
            variables = {**self.variables, "COMPOSE": command}
            self.docker.run(str(self.home / "set-up-acl"), variables=variables, timeout=120)
        elif self.backend == "etcd":
            variables = {**self.variables, "ETCDCTL": f"{command} run --rm -T --no-deps etcdctl"}
            self.docker.run(str(self.home / "set-up-roles"), variables=variables, timeout=120)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # -- the bots

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[DeployedBots]:
        control = SimulatorControl(self.telegram_url)
        try:
            yield DeployedBots(self, control)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{await asyncio.to_thread(self.logs)}") from error
        finally:
            await control.close()


class DeployedBots(Watched):
    """What the bots of a deployment do, for one test."""

    def __init__(self, deployment: Deployment, telegram: SimulatorControl) -> None:
        super().__init__(deployment.folder / "diaries", deployment.bot_id, BOTS, telegram)
        self.deployment = deployment

    async def compose(self, *arguments: str, code: int = 0) -> str:
        return await asyncio.to_thread(self.deployment.compose, *arguments, code=code)

    async def pause(self, service: str) -> float:
        """Freeze its container: the moment before. On a busy machine the freezer gives up, and is to be asked again."""
        while True:
            began = clock.now()
            try:
                await self.compose("pause", service)
            except AssertionError as error:
                if "unable to freeze" not in str(error):
                    raise
            else:
                return began

    async def docker(self, *arguments: str) -> str:
        return await asyncio.to_thread(self.deployment.docker.run, "docker", *arguments)

    async def _standby_is_known(self) -> bool:
        if self.deployment.backend == "file":
            return True
        look = {
            "etcd": ("etcdctl", "get", "--prefix", "--keys-only", "cluster-lock/standby/"),
            "consul": ("consul", "kv", "get", "-keys", "cluster-lock/standby/"),
        }
        said = await self.docker("exec", self.deployment.tool, *look[self.deployment.backend])
        return any(f"cluster-lock/standby/{service}" in said for service in BOTS)
