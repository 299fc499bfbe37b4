"""A deployment of deploy/ as it is shipped: its Compose file on local images, its scripts, its configuration; and a
simulated Telegram that judges what its bots do.

    with Deployment(docker, "etcd", folder) as deployment:
        async with deployment.watched() as watched:
            leader = await watched.settled()
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import pytest
from pytest_docker.plugin import get_docker_services

from cluster_lock import clock
from cluster_lock.testing.servers.base import free_ports
from cluster_lock.testing.telegram import Report, SimulatorControl

from .aio import until
from .docker import CHECKOUT, Docker

BOTS = ("bot-1", "bot-2")
CHATS = (1, 2, 3)
STARTED_WITHIN = 60.0
CHANGED_WITHIN = 40.0
DRAINED_WITHIN = 30.0

Json = dict[str, Any]


@dataclass(frozen=True)
class Process:
    """One life of a bot, by its diary. `client` is what the simulator calls it."""

    client: str
    diary: Path

    @property
    def service(self) -> str:
        return self.client.partition("@")[0]

    @property
    def started(self) -> float:
        return float(self.client.partition("@")[2].partition("#")[0])

    def events(self, kind: str | None = None) -> list[Json]:
        """What it wrote down so far."""
        # The last line may be there in part only, at this moment.
        events: list[Json] = [json.loads(line) for line in self.diary.read_text().split("\n")[:-1]]
        return [event for event in events if kind in (None, event["kind"])]

    @property
    def role(self) -> str:
        """ "leader", "standby" or, before it said so, "starting"."""
        roles = self.events("role")
        return str(roles[-1]["role"]) if roles else "starting"


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
            self.compose("up", "--detach", "telegram", *BOTS)
            self._stack = stack.pop_all()
        return self

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

    def processes(self) -> list[Process]:
        """All lives of all bots so far, the latest last."""
        found = [Process(diary.name, diary) for diary in (self.folder / "diaries").glob("bot-*")]
        return sorted(found, key=lambda process: process.started)

    def latest(self, service: str) -> Process | None:
        return next((process for process in reversed(self.processes()) if process.service == service), None)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Watched]:
        control = SimulatorControl(self.telegram_url)
        try:
            yield Watched(self, control)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{await asyncio.to_thread(self.logs)}") from error
        finally:
            await control.close()


class Watched:
    """What the bots of a deployment do, for one test."""

    def __init__(self, deployment: Deployment, telegram: SimulatorControl) -> None:
        self.deployment = deployment
        self.telegram = telegram
        self._told: set[str] = set()
        self._ends: dict[str, float] = {}

    async def compose(self, *arguments: str, code: int = 0) -> str:
        return await asyncio.to_thread(self.deployment.compose, *arguments, code=code)

    async def docker(self, *arguments: str) -> str:
        return await asyncio.to_thread(self.deployment.docker.run, "docker", *arguments)

    # -- waiting

    def leader(self, besides: Process | None = None) -> Process | None:
        """Who says so. `besides`: one that is not asked, because it could not say otherwise."""
        latest = [process for service in BOTS if (process := self.deployment.latest(service)) not in (None, besides)]
        return next(
            (process for process in latest if process.client not in self._ends and process.role == "leader"), None
        )

    async def settled(self) -> Process:
        """Until one leads and polls, and the other stands by and is known to the backend; the leader."""

        def one_of_each() -> bool:
            latest = [self.deployment.latest(service) for service in BOTS]
            return {process.role for process in latest if process is not None} == {"leader", "standby"}

        await self._reached(one_of_each, STARTED_WITHIN)
        leader = self.leader()
        assert leader is not None
        await self._reached(lambda: self._polled(leader), STARTED_WITHIN)
        await self._reached(self._standby_is_known, STARTED_WITHIN)
        return leader

    async def _standby_is_known(self) -> bool:
        """Does its record stand in the backend? Else a leader would not invite it."""
        if self.deployment.backend == "file":
            return True
        tool = {
            "etcd": ("etcdctl", "get", "--prefix", "--keys-only", "cluster-lock/standby/"),
            "consul": ("consul", "kv", "get", "-keys", "cluster-lock/standby/"),
        }
        said = await self.compose("run", "--rm", "-T", "--no-deps", *tool[self.deployment.backend])
        return any(f"cluster-lock/standby/{service}" in said for service in BOTS)

    def latest(self, service: str) -> Process:
        found = self.deployment.latest(service)
        assert found is not None, f"{service} never started"
        return found

    async def restarted(self, old: Process) -> None:
        """Until its service has a new process."""
        await self._reached(lambda: self.latest(old.service) != old, STARTED_WITHIN)

    async def taken_over(self, old: Process, since: float) -> float:
        """Until another process leads and has polled: seconds from `since` to its first getUpdates."""

        # A paused one would say for ever that it leads.
        await self._reached(lambda: self.leader(besides=old), CHANGED_WITHIN)
        new = self.leader(besides=old)
        assert new is not None
        await self._reached(lambda: self._polled(new, since), CHANGED_WITHIN)
        arrived = [poll["arrived"] for poll in await self._polls(new) if poll["arrived"] > since]
        return float(min(arrived)) - since

    async def keeps_leading(self, leader: Process, seconds: float) -> None:
        """It leads still, and a poll of it arrived after so many seconds: longer than it trusted its lease then."""
        ended = len(leader.events("ended"))
        since = clock.now() + seconds
        await self._reached(lambda: self._polled(leader, since), seconds + CHANGED_WITHIN)
        assert self.leader() == leader
        assert len(leader.events("ended")) == ended, "it lost its term meanwhile"

    async def _polls(self, process: Process) -> list[Json]:
        return [poll for poll in await self.telegram.polls() if poll["client"] == process.client]

    async def _polled(self, process: Process, since: float = 0.0) -> bool:
        return any(poll["arrived"] > since for poll in await self._polls(process))

    async def _reached(self, condition: Callable[[], Any], within: float) -> None:
        async def looked() -> bool:
            # Telegram's container may not answer yet; and the poller of a test must leave the processor to the bots.
            with contextlib.suppress(aiohttp.ClientError):
                answer = condition()
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if answer:
                    return True
            await asyncio.sleep(0.1)
            return False

        looked.__qualname__ = getattr(condition, "__qualname__", "it")
        await until(looked, timeout=within)

    # -- faults that Telegram must be told

    def died(self, process: Process) -> None:
        """It was killed, just now."""
        self._ends[process.client] = clock.now()

    def finished(self, service: str) -> float:
        """When the container of `service` ended last, in `clock.now()`."""
        ended = datetime.fromisoformat(self.deployment.state(service)["FinishedAt"])
        return clock.now() - (time.time() - ended.timestamp())

    # -- the verdict

    async def traffic(self, rate: float = 20.0) -> None:
        await self.telegram.traffic_on(self.deployment.bot_id, rate=rate, chats=CHATS)

    async def judge(self) -> Report:
        """Stop the traffic, let everything be handled, and demand: never two live polls, nothing lost, each chat in
        order, nothing after a term or a death."""
        await self.telegram.traffic_off(self.deployment.bot_id)

        async def all_done() -> bool:
            report = await self._report()
            return not report.pending and not report.lost

        await self._reached(all_done, DRAINED_WITHIN)
        report = await self._report()
        wrong = ("overlapping_polls", "lost", "out_of_order", "conflicts_live", "late_arrivals", "sent_after_term")
        assert not any(getattr(report, name) for name in wrong), (report, report.findings)
        return report

    async def _report(self) -> Report:
        for process in self.deployment.processes():
            events = process.events()
            runs = {(event["update"], event["start"]): event for event in events if event["kind"] == "run"}
            for event in (*runs.values(), *(event for event in events if event["kind"] == "ended")):
                if f"{process.client} {event}" not in self._told:
                    self._told.add(f"{process.client} {event}")
                    await self._tell(process, event)
            if process.client not in self._told and self._is_over(process):
                self._told.add(process.client)
                await self.telegram.dead(process.client, at=self._ends[process.client])
        return await self.telegram.report()

    def _is_over(self, process: Process) -> bool:
        if process.client not in self._ends and process != self.deployment.latest(process.service):
            # It has a successor. What it wrote last it may still have sent.
            self._ends[process.client] = process.events()[-1]["at"] + 0.05
        return process.client in self._ends

    async def _tell(self, process: Process, event: Json) -> None:
        client = process.client
        if event["kind"] == "ended":
            at = event["at"] if event["lost"] is None else event["deadline"]
            await self.telegram.term_ended(client, event["term"], at=at)
            return
        end = None if event["outcome"] is None else event["at"]
        update, start, outcome, term = (event[name] for name in ("update", "start", "outcome", "term"))
        await self.telegram.handled(update, client=client, start=start, end=end, outcome=outcome, term=term)
