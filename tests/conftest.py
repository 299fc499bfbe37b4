"""Real servers for the tests, and what happens where one is missing.

`CLUSTER_LOCK_TEST_BACKENDS` (comma separated: file, etcd34, etcd35, consul, redis, postgres15, postgres18)
restricts the run to those backends; `REQUIRE_SERVERS=1` makes a missing server a failure instead of a skip.
"""

from __future__ import annotations

import gc
import inspect
import os
import random
import signal
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import aio
from support.backends import ETCD_RELEASE, POSTGRES_RELEASE, Backend, selected_backends
from support.nursery import Nursery
from support.postgres import set_up_long_ago

from cluster_lock.drivers.memory import MemoryBackend
from cluster_lock.host import masking
from cluster_lock.testing import virtual_time
from cluster_lock.testing.servers import (
    ConsulServer,
    EtcdServer,
    PostgresServer,
    RedisServer,
    ServerMissing,
    ServerTLS,
)

NOT_RUN = "NOT RUN: "


@pytest.fixture(autouse=True)
def _secrets_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test keeps secret is no secret in the next."""
    monkeypatch.setattr(masking, "_register", masking._Register())


# -- servers -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def store() -> MemoryBackend:
    """What several drivers of one test share: a backend in memory."""
    return MemoryBackend()


@pytest.fixture(scope="session", params=["etcd34", "etcd35"])
def etcd_release(request: pytest.FixtureRequest) -> str:
    """ "3.4" or "3.5": for tests that start, stop or damage a server of their own."""
    return ETCD_RELEASE[request.param]


@pytest.fixture(scope="session")
def etcd_server(etcd_release: str) -> Iterator[EtcdServer]:
    """One etcd with fast timing, shared by all tests: leave it running, use keys of your own."""
    with EtcdServer(release=etcd_release) as server:
        yield server


OLD_ENOUGH = 15
"""Seconds. A Redis that is younger than a ttl gives no leases of that ttl away."""


@pytest.fixture(scope="session")
def consul_server() -> Iterator[ConsulServer]:
    """One Consul with fast timing, shared by all tests: leave it running, use keys of your own."""
    with ConsulServer(dev=True) as server:
        yield server


@pytest.fixture(scope="session", params=["postgres15", "postgres18"])
def postgres_release(request: pytest.FixtureRequest) -> str:
    """ "15" or "18": for tests that start, stop or damage a server of their own."""
    return POSTGRES_RELEASE[request.param]


@pytest.fixture(scope="session")
def postgres_server(postgres_release: str) -> Iterator[PostgresServer]:
    """One PostgreSQL, shared by all tests: leave it running, use keys of your own."""
    with PostgresServer(release=postgres_release) as server:
        set_up_long_ago(server)
        yield server


@pytest.fixture(scope="session", params=["file", "etcd34", "etcd35", "consul", "redis", "postgres18"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Each backend in turn, on a real server with its data on disk, as the settings that a process needs for it."""
    name = str(request.param)
    if name == "file":
        yield Backend("file", {"directory": str(tmp_path_factory.mktemp("state"))}, None)
    elif name == "consul":
        with ConsulServer() as consul:
            yield Backend("consul", {"url": consul.url}, consul)
    elif name == "redis":
        with RedisServer(persistent=True) as redis:
            redis.wait_age(OLD_ENOUGH)
            yield Backend("redis", {"url": redis.url}, redis)
    elif name in POSTGRES_RELEASE:
        with PostgresServer(release=POSTGRES_RELEASE[name]) as postgres:
            set_up_long_ago(postgres)
            yield Backend("postgres", {"dsn": postgres.dsn}, postgres)
    else:
        with EtcdServer(release=ETCD_RELEASE[name]) as etcd:
            yield Backend("etcd", {"endpoints": etcd.endpoints}, etcd)


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Where processes of aiogram programs are born without seconds of imports."""
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTLS:
    """A CA and what it signed: a server certificate for loopback and a client certificate that the server demands."""
    from support.certs import make_tls

    return make_tls(tmp_path_factory.mktemp("tls"))


# -- the test process itself -------------------------------------------------------------------------------------------


def pytest_configure() -> None:
    pytest.register_assert_rewrite("cluster_lock.testing._conformance")
    # Importing aiogram makes objects by the million, and looking for garbage among them takes a third of the start.
    gc.disable()
    # A shell that starts us in the background has us ignore what its keyboard sends, and with us all that we start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


# -- selection ---------------------------------------------------------------------------------------------------------


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = selected_backends()
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        if item.path.stem.startswith(("test_file", "test_conformance_file")):
            item.add_marker("file")
        if "test_mutants" in item.path.parts:
            item.add_marker("slow")
        wanted = _backends_of(item)
        (kept if not wanted or wanted & chosen else dropped).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def _backends_of(item: pytest.Item) -> set[str]:
    """The backends that the item could run on; empty if it needs none."""
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    for fixture in ("etcd_release", "postgres_release", "backend"):
        if fixture in parameters:
            return {str(parameters[fixture])}
    if item.get_closest_marker("etcd"):
        return set(ETCD_RELEASE)
    if item.get_closest_marker("consul"):
        return {"consul"}
    if item.get_closest_marker("redis"):
        return {"redis"}
    if item.get_closest_marker("postgres"):
        return set(POSTGRES_RELEASE)
    # Tests of whole processes that need no server: once, not in each backend's environment.
    return {"file"} if item.get_closest_marker("process") else set()


# -- tests that are coroutines -----------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """An `async def` test runs on a loop of its own: the real one, or with the mark `virtual` one whose time passes
    when nothing is left to do. There a test is the same in each run, with the same random pauses, unless
    `CLUSTER_LOCK_TEST_SEED` says otherwise."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    work = test(**{name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters})
    if pyfuncitem.get_closest_marker("virtual") is not None:
        random.seed(os.environ.get("CLUSTER_LOCK_TEST_SEED", "") + pyfuncitem.nodeid)
        virtual_time.run(work)
    else:
        aio.run(work)
    return True


# -- a missing server --------------------------------------------------------------------------------------------------


def _skip_or_fail(error: ServerMissing) -> None:
    if os.environ.get("REQUIRE_SERVERS") != "1":
        pytest.skip(f"{NOT_RUN}{error}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    except ServerMissing as error:
        _skip_or_fail(error)
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    except ServerMissing as error:
        _skip_or_fail(error)
        raise


# From the reports, which come from worker processes too.
def pytest_terminal_summary(terminalreporter: Any) -> None:
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ()))
    for reason, count in reasons.items():
        if NOT_RUN in reason:
            what = reason.partition(NOT_RUN)[2]
            terminalreporter.write_line(f"{NOT_RUN}{count} tests, {what}", red=True, bold=True)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[1]
