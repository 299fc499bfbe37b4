"""The public API as a type checker sees it: mypy and pyright check this file, nothing runs it.

A line that must be refused ends with a comment for the checker, which complains of a comment that is not needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, assert_type

from aiogram import Bot, Dispatcher
from aiogram.types import Message, Update

from cluster_lock import (
    ClusterLockError,
    Driver,
    Election,
    Grant,
    Hold,
    Leadership,
    Lock,
    LockLost,
    Origin,
    Role,
    Session,
    Term,
    TermExecutor,
    Timing,
    __version__,
    load_settings,
    open_driver,
    open_election,
    open_session,
)
from cluster_lock.aiogram import (
    Conflict,
    ConflictRules,
    LeaseGate,
    Poller,
    PollerState,
    PollingManager,
    Rules,
    bot_from,
    lock_name,
    run_polling,
    start_polling,
)
from cluster_lock.driver import Certified, Inspectable
from cluster_lock.process import BotLock, InstanceInfo, InstanceLock, ShutdownManager, force_release_lock
from cluster_lock.testing import DriverConformance, EtcdServer, FaultyDriver, SimulatorControl, TelegramSimulator
from cluster_lock.testing.telegram import Fault, Report
from cluster_lock.values import Changes, Entry, Lease, Traits

# A lock


async def hold_a_lock() -> None:
    settings = load_settings("config.yaml", overrides={"backend": "file"})
    async with open_session(settings, fail_fast=True) as session:
        assert_type(session, Session)
        assert_type(await session.lease(), Lease)
        assert_type(session.failure, ClusterLockError | None)
        lock = session.lock("reports/nightly")
        assert_type(lock, Lock)
        try:
            async with lock.hold(wait=False, settle=False) as hold:
                assert_type(hold, Hold)
                assert_type(hold.fencing_token, int)
                assert_type(hold.origin, Origin)
                assert_type(hold.is_valid(), bool)
                await hold.verify()
        except LockLost as error:
            assert_type(error.exit_code, int)
        lock.hold(wait="now")  # type: ignore[arg-type]


def make_a_session(driver: Driver) -> Session:
    Session("etcd")  # type: ignore[arg-type]
    return Session(driver, instance="web-1", timing=Timing(ttl=10.0), fencing_floor=7)


# An election


async def job(term: Term) -> int:
    assert_type(term.fencing_token, int)
    assert_type(term.handover, dict[str, Any])
    term.handover["done"] = 7
    task = term.spawn(asyncio.sleep(1), drains=False)
    assert_type(task, asyncio.Task[Any])
    with TermExecutor() as executor:
        await asyncio.get_running_loop().run_in_executor(executor, term.check)
    term.step_down("tired", cool_down=60.0)
    await term.wait_step_down()
    return 7


async def lead(term: Term) -> None:
    await job(term)


async def elect() -> None:
    async with open_election(load_settings()) as election:
        assert_type(election, Election)
        leadership: Leadership = election
        await leadership.lead("x", lead)
        assert_type(leadership.role("x"), Role)
        assert_type(leadership.term("x"), Term | None)
        assert_type(await leadership.run(job), Any)
        await leadership.lead("x", make_a_session)  # type: ignore[arg-type]
    Election(make_a_session(open_driver(load_settings())))


# A bot


async def answer(message: Message, term: Term, fencing_token: int) -> None:
    if term.is_valid():
        await message.answer(f"{fencing_token}, by {__version__}")


async def on_elected(bot: Bot, term: Term) -> None: ...


async def on_failed(bot: Bot, update: Update, error: Exception) -> None: ...


async def poll(dispatcher: Dispatcher, bot: Bot, leadership: Leadership) -> None:
    dispatcher.message.register(answer)
    await start_polling(dispatcher, bot)
    await start_polling(
        dispatcher,
        bot_from(load_settings()),
        bot,
        polling_timeout=20,
        config="config.yaml",
        leadership=leadership,
        on_elected=on_elected,
        on_failed=on_failed,
        on_conflict=ConflictRules(first=1.0),
        database="one of your own",
    )
    await start_polling(dispatcher, "42:TOKEN")  # type: ignore[arg-type]
    await start_polling(dispatcher, bot, polling_timeout="20")  # type: ignore[arg-type]


def poll_without_a_loop(dispatcher: Dispatcher, bot: Bot) -> None:
    run_polling(dispatcher, bot, config=load_settings())


async def poll_with_parts(dispatcher: Dispatcher, bot: Bot, leadership: Leadership) -> None:
    poller = Poller(dispatcher, bot, Rules(order="chat", delivery="at_most_once"))
    Rules(order="any")  # type: ignore[arg-type]
    assert_type(lock_name(bot), str)
    assert_type(poller.state, PollerState)
    await leadership.lead(poller.lock, poller.run, answer=poller.answer)
    async with LeaseGate(leadership, bot):
        await dispatcher.start_polling(bot)

    def told(conflict: Conflict) -> None: ...

    await PollingManager(max_retries=3).start_polling_with_retry(dispatcher, bot, told)


# One process of a host


async def once_per_host() -> None:
    with InstanceLock("my-bot") as lock:
        assert_type(lock, InstanceLock)
        assert_type(lock.info(), InstanceInfo | None)
    with BotLock("42:TOKEN"):
        pass
    assert_type(force_release_lock(), bool)
    shutdown = ShutdownManager()
    shutdown.register_callback(once_per_host)
    shutdown.register_signals()
    await shutdown.wait()
    await shutdown.shutdown()


# A driver of your own


class MyDriver:
    @property
    def traits(self) -> Traits:
        return Traits()

    @property
    def backend(self) -> str:
        return "mine"

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def grant_lease(self, holder: str, ttl: float) -> Lease:
        return Lease("1", ttl, holder)

    async def renew(self, lease: Lease) -> int:
        return 0

    async def revoke(self, lease: Lease) -> None: ...

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        return Grant(name, lease, token=1, index=1, record=record)

    async def release(self, grant: Grant, farewell: bytes) -> None: ...

    async def transfer(self, grant: Grant, heir: Entry, record: bytes) -> bool:
        return False

    async def announce(self, lease: Lease, name: str, record: bytes) -> None: ...

    async def withdraw(self, lease: Lease, name: str) -> None: ...

    async def read(self, names: Collection[str]) -> Changes:
        return Changes(1, {name: Entry(name, None, 1, None) for name in names})

    async def scan(self, prefix: str) -> list[Entry]:
        return []

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        return await self.read(names)


class HalfADriver:
    async def open(self) -> None: ...


class TestMyDriver(DriverConformance):
    ttl = 2.0

    async def open_driver(self) -> Driver:
        return MyDriver()


async def look_at(driver: Driver) -> None:
    if isinstance(driver, Inspectable):
        assert_type(await driver.inspect(""), list[Entry])
    if isinstance(driver, Certified):
        await driver.server_certificates()


# Tests of a bot


async def try_out(dispatcher: Dispatcher, bot: Bot) -> None:
    make_a_session(MyDriver())
    make_a_session(HalfADriver())  # type: ignore[arg-type]
    make_a_session(FaultyDriver(MyDriver()))
    async with TelegramSimulator(strict=True, seed=1) as simulator:
        assert_type(simulator.push(42, text="hello"), int | None)
        simulator.inject(Fault(method="getUpdates", status=502))
        assert_type(simulator.oracle.report(), Report)
        async with SimulatorControl(simulator.url) as control:
            await control.push_many("42:TOKEN", 3)
    with EtcdServer() as server:
        assert_type(server.endpoints, list[str])
