"""A cluster of hosts: three for the store, one for Telegram, three for the bots, and what is needed to judge them. A
primary and its replica are on the first two of the store's.

    with Nursery(folder) as nursery, Hosts("etcd35", nursery) as hosts:
        async with hosts.scene() as scene:
            leader, standby = await scene.start(2)
            hosts.network.partition([leader.host], STORES)

The servers of `hosts` serve many scenes; a scene has a bot of its own, and nothing of an earlier one's.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from cluster_lock import clock
from cluster_lock.config.field_types import duration_text
from cluster_lock.telegram.times import TelegramTimes
from cluster_lock.testing.telegram import Report, SimulatorControl
from cluster_lock.values import LEADER, STANDBY, Record, Timing

from . import wall_clock
from .aio import PATIENCE, until
from .bot_process import environment
from .diaries import DiaryReader, Json
from .diary_bot import CLIENT, DIARY, MUTANT, SLACK, client_name
from .hosted import HostedStore, hosted
from .mutants import CHOSEN, module
from .netns import Network
from .nursery import Child, Nursery
from .stores import open_driver

STORES, TELEGRAM, BOTS = (0, 1, 2), 3, (4, 5, 6)
TELEGRAM_PORT = 8081
CHATS = (1, 2, 3)
TIMES = ("ttl", "margin", "stop_time", "settle", "invite", "drain", "cancel_grace")

ETCD34 = pytest.param("etcd34", marks=pytest.mark.etcd)
ETCD35 = pytest.param("etcd35", marks=pytest.mark.etcd)
CONSUL = pytest.param("consul", marks=pytest.mark.consul)
REDIS = pytest.param("redis", marks=pytest.mark.redis)
POSTGRES18 = pytest.param("postgres18", marks=pytest.mark.postgres)
FILE = pytest.param("file", marks=pytest.mark.file)


def on(*backends: Any) -> pytest.MarkDecorator:
    """Run the test on hosts with each of these stores."""
    return pytest.mark.parametrize("hosts", backends, indirect=True, scope="session")


QUICK_SLACK = 2.0
QUICK = Timing(ttl=4, margin=1, stop_time=0.6, drain=2, cancel_grace=0.5)
QUICK_TIMES = TelegramTimes(poll_timeout=2, telegram_grace=3, handler_timeout=20)
FIRST_LOGGED = " INFO "
"""What comes before is the settings."""


class HostedBot(DiaryReader):
    """One process of the bot on a host of its own. `host` is its index in the network."""

    def __init__(self, name: str, host: int, child: Child, diary: Path) -> None:
        super().__init__(client_name(name, child.pid), diary)
        self.name = name
        self.host = host
        self.child = child

    @property
    def leads(self) -> bool:
        return self.child.returncode is None and bool(self.now["role"] == "leader")

    @property
    def stands_by(self) -> bool:
        return self.child.returncode is None and bool(self.now["role"] == "standby")

    @property
    def term(self) -> int | None:
        """The fencing token, while it leads."""
        found: int | None = self.now["term"]
        return found

    @property
    def deadline(self) -> float:
        """Until when it may lead, by its own word; 0 when it does not."""
        return float(self.now["deadline"] or 0.0)

    @property
    def lost(self) -> list[Json]:
        """The terms that it lost."""
        return [event for event in self.events("ended") if event["lost"] is not None]

    @property
    def stopped_leading(self) -> float | None:
        """When its last term was over, by its own word or by its end."""
        ended = [event["at"] for event in self.events("ended")]
        return ended[-1] if ended else self.child.ended_at

    def __repr__(self) -> str:
        said = self.child.output
        return f"{self.client}, code {self.child.returncode}: {self.now}\n{said[said.find(FIRST_LOGGED) :]}"


class Hosts:
    """The network and the servers. `backend` is one of `support.backends.BACKENDS`; `fast` is as for a server."""

    def __init__(self, backend: str, nursery: Nursery, *, fast: bool = True) -> None:
        self.backend = backend
        self.fast = fast
        self.nursery = nursery
        self.network = Network(len(STORES) + 1 + len(BOTS))
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.network)
            store = hosted(
                self.backend,
                [self.network.hosts[index] for index in STORES],
                self.nursery.folder,
                fast=self.fast,
            )
            self.store: HostedStore[Any] = stack.enter_context(store)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def addresses(self, first: int = 0) -> list[str]:
        """Where the store is, beginning with the node `first`."""
        return self.store.addresses(first)

    def repair(self) -> None:
        """Everything runs and reaches everything."""
        self.network.heal()
        for index in range(len(self.network.hosts)):
            self.network.plug(index)
        self.store.launch()
        self.store.rejoin()
        for node in self.store.nodes:
            node.wait_ready()

    @asynccontextmanager
    async def scene(
        self, timing: Timing = QUICK, times: TelegramTimes = QUICK_TIMES, kind: Callable[..., Scene] | None = None
    ) -> AsyncIterator[Scene]:
        """Telegram and a bot, new ones each time. At the end everything is repaired. `kind`: another one than Scene."""
        folder = self.nursery.folder / secrets.token_hex(4)
        folder.mkdir()
        url = f"http://{self.network.hosts[TELEGRAM].address}:{TELEGRAM_PORT}"
        log = folder / "telegram.log"
        where = ["--host", self.network.hosts[TELEGRAM].address, "--port", str(TELEGRAM_PORT)]
        child = self.nursery.start(
            ["-m", "cluster_lock.testing.telegram", *where],
            environment(folder),
            log=log,
            namespace=self.network.hosts[TELEGRAM].name,
        )
        control = SimulatorControl(url)
        scene = (kind or Scene)(self, folder, url, control, timing, times)
        try:
            await until(lambda: url in child.output)
            yield scene
        finally:
            await control.close()
            for one in (child, *(bot.child for bot in scene.bots)):
                one.kill()
                one.wait(PATIENCE)
            self.repair()


class Scene:
    """One bot, with a lock of its own in the store and a Telegram of its own."""

    def __init__(
        self, hosts: Hosts, folder: Path, url: str, telegram: SimulatorControl, timing: Timing, times: TelegramTimes
    ) -> None:
        self.hosts = hosts
        self.network = hosts.network
        self.telegram = telegram
        self.timing, self.times = timing, times
        self.bots: list[HostedBot] = []
        self.bot_id = 100_000_000 + secrets.randbelow(900_000_000)
        self.prefix = f"cluster-lock/{self.bot_id}/"
        self.lock = f"{self.prefix}{LEADER}telegram/{self.bot_id}"
        """Its key in the store."""
        self.folder, self._url = folder, url
        self._told_dead: set[str] = set()

    # -- on the stage

    async def start(
        self, count: int = 2, *, addresses: Sequence[str] | None = None, mutant: str = ""
    ) -> list[HostedBot]:
        """So many instances, each on a host; the leader first, and each of the others is known to it as a contender.

        `addresses`: the store as they know it, by default that of its nodes.
        """
        first = self.launch(BOTS[0], addresses=addresses, mutant=mutant)
        await until(lambda: first.leads)
        others = [self.launch(host, addresses=addresses, mutant=mutant) for host in BOTS[1:count]]
        await self.contend(*others)
        await until(lambda: self.polled_by(first))
        return [first, *others]

    def launch(self, host: int, *, addresses: Sequence[str] | None = None, mutant: str = "") -> HostedBot:
        """One instance more. It stands by, or leads, when it gets there."""
        name = f"bot-{len(self.bots) + 1}"
        diary, log = self.folder / f"{name}.diary", self.folder / f"{name}.log"
        environ = self.environ(name, **{DIARY: str(diary), MUTANT: mutant})
        child = self.hosts.nursery.start(
            [
                *module("bot"),
                "start",
                "--in-process",
                "--app",
                "support.diary_bot:dispatcher",
                *self.settings(addresses),
            ],
            environ,
            log=log,
            namespace=self.network.hosts[host].name,
        )
        bot = HostedBot(name, host, child, diary)
        self.bots.append(bot)
        return bot

    def environ(self, name: str, **more: str) -> dict[str, str]:
        """That of an instance."""
        return environment(
            self.folder / f"{name}.state",
            TELEGRAM_BOT_TOKEN=f"{self.bot_id}:a-token-for-the-simulated-telegram",
            **{CLIENT: name},
            **({SLACK: str(QUICK_SLACK)} if self.timing is QUICK else {}),
            **({CHOSEN: os.environ[CHOSEN]} if CHOSEN in os.environ else {}),
            **self._own_clock(name),
            **more,
        )

    def _own_clock(self, name: str) -> dict[str, str]:
        if self.hosts.nursery.preload is None:
            return {}
        self.put_wall_clock(name, 0)
        return wall_clock.environment(self.folder / f"{name}.clock")

    def put_wall_clock(self, name: str, seconds: int) -> None:
        """That of this bot, so far ahead of the true one. The nursery must have loaded what makes it possible."""
        wall_clock.put(self.folder / f"{name}.clock", seconds)

    def settings(self, addresses: Sequence[str] | None = None) -> list[str]:
        """Its arguments."""
        timing, store = self.timing, self.hosts.store
        values: Mapping[str, str] = {
            "backend": store.name,
            f"{store.name}.{store.setting}": ",".join(addresses or store.addresses()),
            "prefix": self.prefix,
            "telegram.api": self._url,
            "telegram.poll_timeout": duration_text(self.times.poll_timeout),
            "telegram.handler_timeout": duration_text(self.times.handler_timeout),
            "telegram.grace": duration_text(self.times.telegram_grace),
            **{f"lock.{name}": duration_text(getattr(timing, name)) for name in TIMES},
        }
        return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]

    # -- waiting

    async def contenders(self) -> list[str]:
        """The instances whose contender record stands in the store, who has waited for longest first."""
        driver = open_driver(self.hosts.store.backend(), self.prefix, 2.0)
        await driver.open()
        try:
            records = [Record.from_bytes(entry.record or b"") for entry in await driver.scan(STANDBY)]
            return [record.instance for record in records if record is not None]
        finally:
            await driver.close()

    async def contend(self, *bots: HostedBot) -> None:
        """Until each of these stands by and says so in the store."""

        async def all_contend() -> bool:
            return all(bot.stands_by for bot in bots) and {bot.name for bot in bots} <= {*await self.contenders()}

        await self.reached(all_contend)

    async def taken_over(self, old: HostedBot) -> HostedBot:
        """The next leader, as soon as it has polled."""

        def next_one() -> HostedBot | None:
            return next((bot for bot in self.bots if bot is not old and bot.leads), None)

        await self.reached(next_one)
        new = next_one()
        assert new
        since = clock.now()
        await self.reached(lambda: self.polled_by(new, since - 1))
        return new

    async def reached(self, condition: Callable[[], Any], within: float = PATIENCE) -> None:
        """`until`, with what the bots say when it does not come."""
        try:
            await until(condition, timeout=within)
        except AssertionError as error:
            raise AssertionError(f"{error}\n" + "\n".join(map(repr, self.bots))) from None

    # -- what Telegram saw

    async def polls(self, bot: HostedBot | None = None, since: float = 0.0) -> list[Json]:
        """The getUpdates that arrived (of this process) after `since`, in their order."""
        polls = await self.telegram.polls(since=since)
        return [poll for poll in polls if bot is None or poll["client"] == bot.client]

    async def polled_by(self, bot: HostedBot, since: float = 0.0) -> bool:
        return bool(await self.polls(bot, since))

    async def traffic(self, rate: float = 10.0) -> None:
        await self.telegram.traffic_on(self.bot_id, rate=rate, chats=CHATS)

    async def report(self) -> Report:
        """The verdict so far, with all that the bots wrote down."""
        for bot in self.bots:
            await bot.tell(self.telegram)
            if bot.child.ended_at is not None and bot.client not in self._told_dead:
                self._told_dead.add(bot.client)
                await self.telegram.dead(bot.client, at=bot.child.ended_at)
        return await self.telegram.report()

    async def drained(self) -> Report:
        """Stop the traffic and let everything be handled and confirmed; the verdict on all of it."""
        await self.telegram.traffic_off(self.bot_id)

        async def all_done() -> bool:
            report = await self.report()
            return not report.pending and not report.lost

        await self.reached(all_done)
        report = await self.report()
        assert report.updates_sent
        return report

    async def judge(self) -> Report:
        """The same, and demand what must hold in every scene: never two live polls, nothing lost, nothing late, no
        update twice whose term had ended in good order, no smaller token in a later poll."""
        report = await self.drained()
        wrong = ("overlapping_polls", "lost", "out_of_order", "conflicts_live", "late_arrivals", "sent_after_term")
        assert not any(getattr(report, name) for name in wrong), (report, report.findings, self.bots)
        unconfirmed = {(bot.client, event["term"]) for bot in self.bots for event in bot.lost}
        unconfirmed |= {(bot.client, bot.term) for bot in self.bots if bot.child.returncode}
        for update in await self.telegram.updates():
            runs = sorted((run for run in update["runs"] if run["outcome"] == "ok"), key=lambda run: run["start"])
            assert all((run["client"], run["term"]) in unconfirmed for run in runs[:-1]), (update, self.bots)
        terms = [poll["term"] for poll in await self.polls() if poll["term"] is not None]
        assert terms == sorted(terms)
        return report
