"""The doctor's checks of the backend, each by doing what a bot would do."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Awaitable
from typing import TypeVar

from cluster_lock import clock
from cluster_lock.admin.first_lease import first_lease
from cluster_lock.config import Settings
from cluster_lock.driver import Driver, Inspectable
from cluster_lock.drivers import FOR_SEVERAL_HOSTS
from cluster_lock.drivers.checked import CheckedDriver
from cluster_lock.errors import BackendUnavailable, ClusterLockError, PermissionRefused
from cluster_lock.values import INVITE, LEADER, REPLY, REQUEST, STANDBY, BackendNode, Entry, Lease, Record
from cluster_lock.version import __version__

from .findings import Finding

log = logging.getLogger("cluster_lock.cli.doctor")

T = TypeVar("T")

OLDEST = {"etcd": (3, 4), "consul": (1, 8), "redis": (7, 0), "postgres": (15,)}
"""The oldest releases that the tests run against."""

TICK = {"etcd": 0.5}
"""Seconds after which at the latest a server looks for leases that are over."""


def clock_source() -> Finding:
    if clock.NAME == "CLOCK_BOOTTIME":
        return Finding.ok("clock", "CLOCK_BOOTTIME: a suspend of this machine is counted")
    return Finding.warning(
        "clock", f"{clock.NAME}: a suspend of this machine may not be counted as time that has passed"
    )


async def examine_backend(driver: Driver, settings: Settings) -> list[Finding]:
    """Stops at what makes the rest impossible."""
    examination = _Examination(driver, settings)
    findings = [await examination.reach()]
    if findings[0].code:
        return findings
    if driver.traits.one_host:
        text = "locks in files serve this host alone: an instance on another host would lead beside this one"
        findings.append(Finding.ok("hosts", f"{text}; for several hosts choose backend {FOR_SEVERAL_HOSTS}"))
    findings += await examination.servers()
    findings += await examination.inspection()
    lease, found = await examination.lease()
    findings += found
    if lease is not None:
        findings.append(await examination.rights(lease))
        findings.append(examination.takeover(lease))
    return findings


class _Examination:
    def __init__(self, driver: Driver, settings: Settings) -> None:
        self.own, self.settings, self.request = driver, settings, settings.timing.request
        self.driver = CheckedDriver(driver, self.request)
        self.name = f"doctor/{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    async def reach(self) -> Finding:
        sent = clock.now()
        try:
            await self.within(self.driver.read([LEADER + self.name]))
        except ClusterLockError as error:
            return self.refused("backend", error)
        return Finding.ok("backend", f"{self.driver.backend} answered after {(clock.now() - sent) * 1000:.1f} ms")

    async def servers(self) -> list[Finding]:
        if not isinstance(self.own, Inspectable):
            return [Finding.warning("servers", "this driver does not tell of its servers (docs/drivers.md)")]
        asked = clock.wall()
        try:
            nodes = await self.within(self.own.nodes())
        except Exception as error:  # noqa: BLE001 - nothing of it is needed for leading, whoever wrote the driver
            return [Finding.warning("servers", f"not told: {error}")]
        if not nodes:
            return []
        clocks = [self.compared(node, node.told_at, asked) for node in nodes if node.told_at is not None]
        return [*(self.server(node) for node in nodes), *clocks, *self.number(len(nodes))]

    def compared(self, node: BackendNode, told_at: float, asked: float) -> Finding:
        """A server whose leases end by the wall clock, beside this host. Who sets such a clock moves their ends."""
        answered = clock.wall()
        ahead = told_at - (asked + answered) / 2
        text = f"the clock of {node.address} is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this host's"
        margin = self.settings.timing.margin
        if abs(ahead) > margin + (answered - asked):
            danger = f"leases end by it: set by more than lock.margin ({margin:g} s) while bots run, it ends them early"
            return Finding.warning("clocks", f"{text}; {danger}", "see to the time of both hosts, then start the bots")
        return Finding.ok("clocks", text)

    def number(self, nodes: int) -> list[Finding]:
        """Is that how many there should be?"""
        lost = "while it is down nobody becomes the leader, and a leader stops at its deadline"
        if not self.driver.traits.majority:
            return [Finding.ok("servers", f"one server decides: {lost}, or until a replica is promoted")]
        if nodes == 1:
            return [Finding.warning("servers", f"there is one only: {lost}", "run three")]
        if nodes % 2 == 0:
            text = f"{nodes} survive the loss of no more than {nodes - 1} would"
            return [Finding.warning("servers", text, f"run {nodes - 1} or {nodes + 1}")]
        return []

    def server(self, node: BackendNode) -> Finding:
        who = f"{node.name} at {node.address}" if node.name != node.address else node.name
        if node.problem:
            return Finding.warning("servers", f"{who}: {node.problem}")
        oldest = OLDEST.get(self.settings.backend)
        if node.version is None:
            return Finding.ok("servers", f"{who}, version not told{', leads the servers' if node.leads else ''}")
        text = f"{who}, version {node.version}{', leads the servers' if node.leads else ''}"
        if oldest is not None and _version(node.version) < oldest:
            tested = ".".join(map(str, oldest))
            return Finding.warning("servers", f"{text}: older than any that is tested ({tested})")
        return Finding.ok("servers", text)

    async def inspection(self) -> list[Finding]:
        """May one see what stands there, as `cluster-lock status` does?"""
        if not isinstance(self.own, Inspectable):
            return []
        try:
            await self.within(self.own.inspect(LEADER))
        except Exception as error:  # noqa: BLE001 - as above
            return [Finding.warning("status", f"`cluster-lock status` cannot look: {error}", "a bot leads without it")]
        return []

    async def lease(self) -> tuple[Lease | None, list[Finding]]:
        """A lease as a bot would get it. The server's floor shows in its answer."""
        asked = self.settings.timing.ttl
        try:
            holder = f"doctor@{socket.gethostname()}/{os.getpid()}"
            lease = await first_lease(self.driver, holder, asked, request=self.request)
        except ClusterLockError as error:
            return None, [self.refused("lease", error)]
        try:
            self.settings.timing.promised(lease.ttl)
        except ValueError as error:
            await self.revoke(lease)
            return None, [
                Finding.problem("lease", f"the server grants {lease.ttl:g} s for lock.ttl {asked:g} s: {error}", 78)
            ]
        if lease.ttl > asked:
            text = f"lock.ttl is {asked:g} s, the server grants no less than {lease.ttl:g} s"
            return lease, [Finding.warning("lease", text, "set lock.ttl to that, or lower the server's floor")]
        return lease, [Finding.ok("lease", f"granted for {lease.ttl:g} s, as asked")]

    async def rights(self, lease: Lease) -> Finding:
        """What a leader and a standby do, on a name that nobody has, and nothing of it stays."""
        key, standby = LEADER + self.name, STANDBY + self.name
        doing = ""
        try:
            try:
                doing = "take a lock"
                grant = await self.within(self.driver.acquire(lease, key, self.record()))
                if grant is None:
                    return Finding.problem("rights", f"a lock that nobody holds was not given ({key})")
                doing = "stand by"
                await self.within(self.driver.announce(lease, standby, self.record()))
                doing = "renew"
                await self.within(self.driver.renew(lease))
                doing = "see who stands by"
                entries = await self.within(self.driver.scan(STANDBY))
                if not any(entry.name == standby for entry in entries):
                    text = f"what was written under {standby} cannot be seen"
                    return Finding.problem("rights", text, PermissionRefused.exit_code, "allow it to read the prefix")
                if self.driver.traits.transfers:
                    doing = "hand over"
                    ours = Entry(standby, lease.id, 0, None)
                    if not await self.within(self.driver.transfer(grant, ours, self.record())):
                        return Finding.problem("rights", f"a lock of ours could not be handed over ({key})")
                    grant = await self.within(self.driver.acquire(lease, key, self.record())) or grant
                doing = "release"
                await self.within(self.driver.release(grant, self.record()))
                for room in (INVITE, REPLY):
                    doing = f"write under {room}"
                    await self.within(self.driver.announce(lease, room + self.name, self.record()))
                may_ask = await self.may_ask(lease)
            finally:
                await self.clean_up(lease)
        except ClusterLockError as error:
            return self.refused("rights", error, doing)
        did = "took, handed over and released" if self.driver.traits.transfers else "took and released"
        text = f"{did} {self.name}, and deleted it"
        return Finding.ok("rights", text if may_ask else f"{text}; `step-down` is for those who may write {REQUEST}")

    async def may_ask(self, lease: Lease) -> bool:
        """A bot need not be allowed to ask others to step down."""
        try:
            await self.within(self.driver.announce(lease, REQUEST + self.name, self.record()))
        except PermissionRefused:
            return False
        return True

    async def clean_up(self, lease: Lease) -> None:
        """What is announced can be withdrawn, so also what a release leaves for the next one is deleted."""
        for room in (LEADER, "last/", STANDBY, INVITE, REQUEST, REPLY):
            name = room + self.name
            try:
                if room in (LEADER, "last/"):
                    await self.within(self.driver.announce(lease, name, b""))
                await self.within(self.driver.withdraw(lease, name))
            except ClusterLockError as error:
                log.info("%s is left to its lease: %s", name, error)  # what is not allowed was found out before
        await self.revoke(lease)

    async def revoke(self, lease: Lease) -> None:
        try:
            await self.within(self.driver.revoke(lease))
        except ClusterLockError as error:
            log.info("the doctor's lease is left to its ttl: %s", error)

    def takeover(self, lease: Lease) -> Finding:
        """What the loss of a leader's host costs; a worker's crash under a keeper costs milliseconds."""
        settings, timing = self.settings, self.settings.timing
        if not self.driver.traits.expires:
            text = f"at once after a crash, after {lease.ttl:g} s when the leader is stopped; on this host only"
            return Finding.ok("take-over", text)
        factor = self.driver.traits.expiry_factor
        delay = settings.consul.lock_delay if settings.backend == "consul" else 0.0
        longest = lease.ttl * factor + delay + TICK.get(settings.backend, 0.0) + timing.settle
        parts = [f"{lease.ttl:g} s ttl" if factor == 1 else f"{factor:g} x {lease.ttl:g} s ttl"]
        parts += [f"{delay:g} s lock_delay"] if delay else []
        parts += [f"{TICK[settings.backend]:g} s until the server looks"] if settings.backend in TICK else []
        parts += [f"{timing.settle:g} s settle"] if timing.settle else []
        text = f"up to {longest:g} s after the loss of the leader's host: {' + '.join(parts)}"
        return Finding.ok("take-over", text)

    def record(self) -> bytes:
        host, pid = socket.gethostname(), os.getpid()
        record = Record(
            holder=f"doctor@{host}/{pid}",
            instance="doctor",
            host=host,
            pid=pid,
            since=clock.utc_text(),
            version=__version__,
        )
        return record.to_bytes()

    def refused(self, check: str, error: ClusterLockError, doing: str = "") -> Finding:
        text = f"cannot {doing}: {error}" if doing else str(error)
        return Finding.problem(check, text, error.exit_code)

    async def within(self, asking: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self.request):
                return await asking
        except TimeoutError as error:
            raise BackendUnavailable(f"{self.driver.backend} did not answer within {self.request:g} s") from error


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("-")[0].split(".")[:2])
