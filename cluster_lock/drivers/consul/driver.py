"""Consul: a lease is a session, a lock is a key that a session holds, and every verb on a lock is one transaction.

Sessions are made with empty checks, so that no agent's health ends them, and without a lock-delay: what that protects,
the deadline of the holder and the pause of the next one protect already. The server frees what a silent session held
after twice its ttl; nothing here ever counts on the second one.

A key keeps its last value when its lock is freed: the next holder reads there what the last one wrote.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from typing import Any, Literal

from cluster_lock.errors import BackendRefused, BackendUnavailable, ForeignValue, LeaseExpired, PermissionRefused
from cluster_lock.values import INVITE, STANDBY, Changes, Entry, Grant, Lease, Traits, Validity

from .grants import Grants
from .inspect import ConsulInspecting
from .link import ConsulAccess, ConsulLink, Row, SessionGone
from .view import View, entry_of
from .words import (
    IN_ONE_TRANSACTION,
    Answered,
    Operation,
    duration,
    is_ours,
    lease_is_gone,
    name_of,
    operation,
    quote_key,
    refused_session,
    unchanged,
)


class ConsulDriver(ConsulInspecting):
    """Locks on Consul 1.8 or newer, through its agents at `urls` ("http://10.0.0.1:8500"): the next one is asked when
    one does not answer, within the same `request_timeout` (seconds for one verb).

    All agents must be of one cluster: while two answer there is no lease to be had, and none is renewed; the first
    lease waits for agents that are silent, if they are half or more, for at most its ttl.

    `token`: the ACL token; it travels in a header, never in an URL. `ca`, `cert`, `key`: PEM files for https, read
    again when they change. With a token, a CA or a certificate every address must be https, but for those of this host.
    `lock_delay`: seconds for which Consul gives a lock to nobody after its session ended (not after a release).
    `behavior`: what happens to the keys of a session that ended; "delete" forgets what the last holder wrote.
    `checks`: node health checks that end the session when they fail. `session_node`: make sessions on this registered
    external node, because a session made through a client agent ends when that agent leaves the cluster.

    A contender record whose session ended stays under its key with behavior "release": `scan` leaves it out, and the
    next `revoke` of anybody deletes it.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        request_timeout: float,
        prefix: str = "cluster-lock/",
        token: str | None = None,
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        datacenter: str | None = None,
        lock_delay: float = 0.0,
        behavior: Literal["release", "delete"] = "release",
        checks: Sequence[str] = (),
        session_node: str | None = None,
    ) -> None:
        self._prefix = prefix.lstrip("/")  # as Consul's own tool does
        self._node = session_node
        self._session = {
            "LockDelay": duration(lock_delay),
            "Behavior": behavior,
            # Under both of its names: the one that is left out would be serfHealth.
            "NodeChecks": list(checks),
            "Checks": list(checks),
        } | ({"Node": session_node} if session_node else {})
        whose = f'session "{session_node}"' if session_node else 'session_prefix ""'
        rules = {
            "/v1/session/": f'{whose} {{ policy = "write" }}',
            "/": f'key_prefix "{self._prefix}" {{ policy = "write" }}',
        }
        self._link = ConsulLink(ConsulAccess(urls, token, ca, cert, key), datacenter, request_timeout, rules)
        self._grants = Grants()
        self._view = View(self._link, self._prefix)

    @property
    def traits(self) -> Traits:
        return Traits(expiry_factor=2.0, majority=True)

    @property
    def backend(self) -> str:
        return f"consul {', '.join(self._link.urls)}"

    async def open(self) -> None:
        """Raises DriverMissing; ConfigError and PermissionRefused for certificate files that cannot be used."""
        await self._link.open()

    async def close(self) -> None:
        await self._link.close()

    def certificates(self) -> dict[str, Validity]:
        return self._link.certificates

    async def server_certificates(self) -> dict[str, Validity]:
        return await self._link.server_certificates()

    # Leases

    async def grant_lease(self, holder: str, ttl: float) -> Lease:
        # Rounded to "0s" it would be a session without an end.
        body = self._session | {"Name": holder, "TTL": duration(max(ttl, 0.001))}
        with self._link.asking("create a session") as client:
            await self._link.agree_on_a_cluster(ttl)
            try:
                session_id = await client.create_session(body)
            except Answered as answer:
                if error := refused_session(answer, ttl, self._node):
                    raise error from answer
                raise
            try:
                await self._link.agree_on_a_session(session_id, ttl)
            except BackendRefused:
                self._link.cluster.gone(session_id)
                with contextlib.suppress(BackendUnavailable, BackendRefused, Answered):  # then it ends with its ttl
                    await client.session.destroy(session_id)
                raise
        return Lease(session_id, ttl, holder)

    async def renew(self, lease: Lease) -> int:
        self._link.cluster.check()
        with self._link.asking("renew the session", lane="renewal") as client:
            try:
                await client.session.renew(lease.id)
            except Answered as answer:
                # Said also of a live session while a restarted server replays its log: lost is the safe answer.
                if lease_is_gone(answer):
                    raise self._expired(lease) from answer
                raise
        self._link.cluster.renewed(lease.id, lease.ttl)
        return 0

    async def revoke(self, lease: Lease) -> None:
        self._link.cluster.gone(lease.id)
        # Released first: the end of a session starts the lock-delay of each lock that it still holds.
        with self._link.asking(f"read {self._prefix}") as client:
            _, rows = await client.kv.get(self._prefix, recurse=True)
        await self._each([self._freed(row, lease) for row in rows or () if row.get("Session") == lease.id])
        with self._link.asking("destroy the session") as client:
            try:
                await client.session.destroy(lease.id)
            except Answered as answer:
                if not lease_is_gone(answer):
                    raise
        self._grants.forget(lease.id)
        for row in rows or ():
            if self._is_of_the_dead(row):
                with contextlib.suppress(PermissionRefused):  # another bot's: one of its own instances does it
                    await self._change(operation("delete-cas", row["Key"], Index=row["ModifyIndex"]))

    def _freed(self, row: Row, lease: Lease) -> list[Operation]:
        """How to free a key that `lease` holds."""
        key = row["Key"]
        if self._is_record(key):
            return [operation("check-session", key, Session=lease.id), operation("delete", key)]
        return [operation("unlock", key, Session=lease.id, value=row["Value"] or b"")]

    def _is_record(self, key: str) -> bool:
        return key.startswith((self._prefix + STANDBY, self._prefix + INVITE))

    def _is_of_the_dead(self, row: Row) -> bool:
        """A record that nobody's session holds any more."""
        key = row["Key"]
        return self._is_record(key) and not row.get("Session") and name_of(key.removeprefix(self._prefix)) is not None

    async def _each(self, steps: Sequence[list[Operation]]) -> None:
        """Do all steps, in few transactions. One that no longer applies stops no other one."""
        many = IN_ONE_TRANSACTION // 2
        for batch in (steps[start : start + many] for start in range(0, len(steps), many)):
            if await self._change(*(operation for step in batch for operation in step)) is None:
                for step in batch:
                    await self._change(*step)

    async def _change(self, *operations: Operation) -> list[Row] | None:
        with self._link.asking(f"change {operations[0]['Key']}") as client:
            return await self._link.transact(client, *operations)

    # Locks

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        key = self._key(name)
        try:
            self._link.cluster.check()
        except BackendRefused as error:
            raise BackendUnavailable(str(error)) from error  # who waits goes on waiting: a person is at work
        with self._link.asking(f"lock {key}") as client:
            # What a wait, or a release of ours, told last is likely so still; the transaction finds out.
            guess = key in self._view.free and is_ours(last := self._view.free.pop(key))
            if guess and (grant := await self._take(client, lease, name, record, last)):
                return grant
            _, row = await client.kv.get(key)
            if row is None or not row.get("Session"):
                if grant := await self._take(client, lease, name, record, row):
                    return grant
                _, row = await client.kv.get(key)
        holder = row.get("Session") if row is not None else None
        if holder == lease.id:  # an earlier copy of this request was applied, or somebody transferred it to us
            return self._grants.found(lease, name, row)
        if holder:
            self._grants.forget(lease.id, name)
        return None

    async def _take(self, client: Any, lease: Lease, name: str, record: bytes, row: Row | None) -> Grant | None:
        """Take the lock if it stands as in `row`, and nothing else is overwritten."""
        key = self._key(name)
        if not is_ours(row):
            raise ForeignValue(
                f"the value of {key} was not written by a leader: look at it (consul kv get '{key}'), then delete it"
            )
        attempt = self._grants.attempt(lease, name, record, None if row is None else row["Value"] or b"")
        lock = operation("lock", key, Session=lease.id, value=record)
        try:
            done = await self._link.transact(client, unchanged(key, row), lock)
        except SessionGone as error:
            raise self._expired(lease) from error
        return self._grants.granted(attempt, lease, name, done[-1]) if done is not None else None

    async def release(self, grant: Grant, farewell: bytes) -> None:
        key = self._key(grant.name)
        done = await self._change(
            operation("check-index", key, Index=grant.index),
            operation("unlock", key, Session=grant.lease.id, value=farewell),
        )
        if done is not None:
            self._grants.forget(grant.lease.id, grant.name)
            self._view.free[key] = done[-1] | {"Value": farewell}

    async def transfer(self, grant: Grant, heir: Entry, record: bytes) -> bool:
        if heir.lease is None:
            return False
        key = self._key(grant.name)
        steps = (
            operation("check-index", key, Index=grant.index),
            operation("check-session", self._key(heir.name), Session=heir.lease),
            operation("unlock", key, Session=grant.lease.id, value=record),
            operation("lock", key, Session=heir.lease, value=record),
        )
        with self._link.asking(f"transfer {key}") as client:
            try:
                done = await self._link.transact(client, *steps)
            except SessionGone:
                done = None
            if done is None:
                # Refused; or an earlier copy of this request was not.
                _, row = await client.kv.get(key)
                if row is None or row.get("Session") != heir.lease or row["Value"] != record:
                    return False
        self._grants.forget(grant.lease.id, grant.name)
        return True

    # Contender records and invitations

    async def announce(self, lease: Lease, name: str, record: bytes) -> None:
        key = self._key(name)
        try:
            # Without the delete, the holder of the key would keep it. It starts no lock-delay.
            done = await self._change(operation("delete", key), operation("lock", key, Session=lease.id, value=record))
        except SessionGone as error:
            raise self._expired(lease) from error
        if done is None:
            raise BackendUnavailable(f"{key} is in the lock-delay of a session that ended")

    async def withdraw(self, lease: Lease, name: str) -> None:
        key = self._key(name)
        await self._change(operation("check-session", key, Session=lease.id), operation("delete", key))

    # Looking

    async def read(self, names: Collection[str]) -> Changes:
        return await self._view.read(names)

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        return await self._view.wait_changed(names, since, at_most)

    async def scan(self, prefix: str) -> list[Entry]:
        with self._link.asking(f"read {self._prefix}{prefix}") as client:
            _, rows = await client.kv.get(self._key(prefix), recurse=True)
        named = [(name_of(row["Key"].removeprefix(self._prefix)), row) for row in rows or () if row.get("Session")]
        held = [entry_of(name, row) for name, row in named if name is not None]
        return sorted(held, key=lambda entry: entry.index)

    def _key(self, name: str) -> str:
        return self._prefix + quote_key(name)

    def _expired(self, lease: Lease) -> LeaseExpired:
        self._grants.forget(lease.id)
        self._link.cluster.gone(lease.id)
        return LeaseExpired(f"Consul has no session {lease.id} (of {lease.holder})")
