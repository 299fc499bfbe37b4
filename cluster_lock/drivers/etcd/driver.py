"""Locks in etcd 3.4 and later: keys that a lease holds, changed by transactions that compare revisions.

Under the prefix stand the keys of `values.keys`, each held by its lease, and for each lock `last/NAME`, held by nobody:
what the last holder left, its record or its farewell. An acquire puts both in one transaction and so learns in its one
request what stood there before.

    cluster-lock/leader/telegram/42     the leader's record, held by its lease
    cluster-lock/last/telegram/42       the same record, or the farewell after a release

Fencing token and index are the revision of the transaction that granted. etcd's revision only grows, whatever is
deleted; only a restore or a rebuilt cluster takes it back.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Collection, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from cluster_lock.drivers.shared.secret import Secret
from cluster_lock.errors import BackendRefused, BackendUnavailable, ConfigError, ForeignValue, LeaseExpired
from cluster_lock.values import Changes, Entry, Grant, Lease, Traits, Validity

from .address import EtcdAccess
from .errors import Compacted, LeaseExists
from .inspect import EtcdInspecting
from .library import load
from .link import EtcdLink, Metadata
from .node import Node
from .requests import Requests, after_prefix, number, shown, shown_id, span
from .watch import Forgotten, Watches

_MAX_TXN_OPERATIONS = 128
"""etcd's own default (--max-txn-ops)."""

_FINISHING = 0.2
"""Seconds that a renewal which was answered waits for its stream to end."""

# The methods of a node's stubs.
_TXN, _RANGE, _PUT = attrgetter("kv.Txn"), attrgetter("kv.Range"), attrgetter("kv.Put")
_GRANT, _REVOKE = attrgetter("leases.LeaseGrant"), attrgetter("leases.LeaseRevoke")
_TIME_TO_LIVE = attrgetter("leases.LeaseTimeToLive")


class EtcdDriver(EtcdInspecting):
    """A client of one etcd cluster. Durations in seconds.

    `endpoints`: "http://host:2379" or "https://...", in the order in which they are tried. `ca`, `cert`, `key`: PEM
    files, read again when they change; without `ca` a public authority must have signed the server's certificate.
    `request_timeout`: what one verb may take, over all endpoints together. Raises ConfigError.

    All endpoints must be of one cluster. While two clusters answer there is no lease to be had, and none is renewed;
    the first lease waits for an endpoint that is silent and unknown to the others, for at most its ttl.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        prefix: str = "cluster-lock/",
        request_timeout: float,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        user: str | None = None,
        password: str | Secret | None = None,
    ) -> None:
        self._access = EtcdAccess(endpoints, ca=ca, cert=cert, key=key, user=user, password=password)
        if not prefix:
            raise ConfigError(["etcd: the prefix must not be empty"])
        self._prefix = prefix
        self._request_timeout = request_timeout
        self._opened: tuple[EtcdLink, Watches, Requests] | None = None

    @property
    def traits(self) -> Traits:
        return Traits(majority=True)

    @property
    def backend(self) -> str:
        return f"etcd {','.join(map(str, self._access.addresses))}"

    async def open(self) -> None:
        """Raises DriverMissing, ConfigError for TLS files that cannot be used, PermissionRefused for their rights."""
        library = load()
        # As etcdctl's `role grant-permission ROLE` takes it.
        link = EtcdLink(library, self._access, self._request_timeout, f"readwrite {self._prefix} --prefix")
        self._opened = link, Watches(library, link), Requests(library.rpc, self._prefix)

    async def close(self) -> None:
        if self._opened:
            link, watches, _ = self._opened
            watches.close()
            await link.close()

    def certificates(self) -> dict[str, Validity]:
        return self._access.files.validity

    async def server_certificates(self) -> dict[str, Validity]:
        return await self._access.files.shown_by(self._access.addresses, self._request_timeout)

    # Leases.

    async def grant_lease(self, holder: str, ttl: float) -> Lease:
        link, _, of = self._parts()
        # Chosen here, so that a second copy of this request, sent because an answer was lost, makes no second lease.
        lease = secrets.randbits(63) or 1
        doing, deadline = f"grant a lease of {ttl:g} s", link.deadline()
        await link.agree_on_a_cluster(ttl, deadline)
        try:
            request = of.rpc.LeaseGrantRequest(TTL=math.ceil(ttl), ID=lease)
            granted = (await link.ask(_GRANT, request, doing, deadline=deadline)).TTL
        except LeaseExists:
            request = of.rpc.LeaseTimeToLiveRequest(ID=lease)
            granted = (await link.ask(_TIME_TO_LIVE, request, doing, deadline=deadline)).grantedTTL
            if granted <= 0:
                raise BackendUnavailable(f"{self.backend}: the new lease was over before we heard of it") from None
        return Lease(shown_id(lease), float(granted), holder)

    async def renew(self, lease: Lease) -> int:
        link, _, of = self._parts()
        link.cluster.check()
        request = of.rpc.LeaseKeepAliveRequest(ID=number(lease.id))

        async def attempt(node: Node, metadata: Metadata, limit: float) -> Any:
            # A stream for each renewal: a shared one answers nothing any more after its first error.
            stream = link.stream(node, node.leases.LeaseKeepAlive(timeout=limit, metadata=metadata), request)
            try:
                answer = await stream.answer(limit)
                if answer is None:
                    raise TimeoutError
                await stream.finish(_FINISHING)
            finally:
                stream.close()
            return answer

        answer = await link.rotate(attempt, f"renew {shown(lease)}")
        if answer.TTL <= 0:  # to etcd a lease that is gone is no error
            raise LeaseExpired(f"{self.backend}: {shown(lease)} is gone")
        return int(answer.header.raft_term)

    async def revoke(self, lease: Lease) -> None:
        link, _, of = self._parts()
        with contextlib.suppress(LeaseExpired):  # what was asked for
            await link.ask(_REVOKE, of.rpc.LeaseRevokeRequest(ID=number(lease.id)), f"revoke {shown(lease)}")

    # Locks.

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        link, _, of = self._parts()
        key, last, deadline = of.key(name), of.last(name), link.deadline()
        try:
            link.cluster.check()
        except BackendRefused as error:
            raise BackendUnavailable(str(error)) from error  # who waits goes on waiting: a person is at work
        request = of.txn(
            [of.absent(name)],
            # The last word is nobody's: it outlives its writer.
            [of.put(key, record, lease.id), of.put(last, record, prev_kv=True)],
            [of.get(key)],
        )
        answer = await link.ask(_TXN, request, f"acquire {shown(key)} (and {shown(last)})", deadline=deadline)
        if answer.succeeded:
            put, token = answer.responses[1].response_put, answer.header.revision
            return Grant(name, lease, token, token, record, put.prev_kv.value if put.HasField("prev_kv") else None)
        kvs = answer.responses[0].response_range.kvs
        if not kvs:
            raise BackendUnavailable(f"{self.backend} refused {shown(key)} and shows nothing that stands there")
        (stands,) = kvs
        if not stands.lease:
            raise ForeignValue(
                f"{self.backend}: what stands under {shown(key)} was written without a lease, so not by a leader, and"
                f" will not end: look at it, then delete it (etcdctl del '{shown(key)}')"
            )
        if stands.lease != number(lease.id):
            return None
        previous = await self._value_before(stands.mod_revision, last, deadline)
        return Grant(name, lease, stands.mod_revision, stands.mod_revision, stands.value, previous)

    async def _value_before(self, revision: int, key: bytes, deadline: float) -> bytes | None:
        """What stood under `key` just before `revision`; None, too, if etcd has thrown that away."""
        link, _, of = self._parts()
        request = of.rpc.RangeRequest(key=key, revision=revision - 1)
        try:
            answer = await link.ask(_RANGE, request, f"read {shown(key)}", deadline=deadline)
        except Compacted:
            return None
        return answer.kvs[0].value if answer.kvs else None

    async def release(self, grant: Grant, farewell: bytes) -> None:
        link, _, of = self._parts()
        last = of.last(grant.name)
        request = of.txn(of.stands(grant), [of.delete(grant.name), of.put(last, farewell)], [])
        await link.ask(_TXN, request, f"release {shown(of.key(grant.name))} (and {shown(last)})")

    async def transfer(self, grant: Grant, heir: Entry, record: bytes) -> bool:
        if heir.lease is None:
            return False  # nobody waits there; and without a lease the lock would never end
        link, _, of = self._parts()
        key, last = of.key(grant.name), of.last(grant.name)
        request = of.txn(
            [*of.stands(grant), of.held(heir.name, heir.lease)],
            [of.put(key, record, heir.lease), of.put(last, record)],
            [of.get(key)],
        )
        try:
            answer = await link.ask(_TXN, request, f"transfer {shown(key)} (and {shown(last)}) to {heir.name}")
        except LeaseExpired:
            return False  # the heir's: etcd then refuses the transaction as a whole
        # If not by this request, then by an earlier copy of it whose answer was lost.
        return answer.succeeded or any(
            kv.lease == number(heir.lease) and kv.value == record and kv.mod_revision > grant.index
            for kv in answer.responses[0].response_range.kvs
        )

    # Keys that are not locks.

    async def announce(self, lease: Lease, name: str, record: bytes) -> None:
        link, _, of = self._parts()
        key = of.key(name)
        await link.ask(_PUT, of.put(key, record, lease.id).request_put, f"announce {shown(key)} under {shown(lease)}")

    async def withdraw(self, lease: Lease, name: str) -> None:
        link, _, of = self._parts()
        request = of.txn([of.held(name, lease.id)], [of.delete(name)], [])
        await link.ask(_TXN, request, f"withdraw {shown(of.key(name))}")

    # Reading and waiting.

    async def read(self, names: Collection[str]) -> Changes:
        link, _, of = self._parts()
        keys = {of.key(name): name for name in names}
        doing = f"read {shown(keys)}"
        if len(keys) <= _MAX_TXN_OPERATIONS:
            answer = await link.ask(_TXN, of.txn([], [of.get(key) for key in keys], []), doing)
            found = [kv for response in answer.responses for kv in response.response_range.kvs]
        else:
            first, end = span(keys)
            answer = await link.ask(_RANGE, of.rpc.RangeRequest(key=first, range_end=end), doing)
            found = [kv for kv in answer.kvs if kv.key in keys]
        revision = answer.header.revision
        entries = {name: Entry(name, None, revision, None) for name in keys.values()}
        entries |= {entry.name: entry for entry in of.entries(found)}
        return Changes(revision, entries, answer.header.raft_term)

    async def scan(self, prefix: str) -> list[Entry]:
        link, _, of = self._parts()
        first = of.key(prefix)
        request = of.rpc.RangeRequest(key=first, range_end=after_prefix(first))
        answer = await link.ask(_RANGE, request, f"read what begins with {shown(first)}")
        return of.entries(kv for kv in answer.kvs if kv.lease)

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        if not isinstance(since, int) or not names:
            return await self.read(names)
        _, watches, of = self._parts()
        keys = {of.key(name) for name in names}
        silence = max(at_most - self._request_timeout, at_most / 2)
        try:
            heard = await watches.wait(span(keys), since, silence, keys.__contains__, f"watch {shown(keys)}")
        except Forgotten:
            return await self.read(names)
        if not heard.events:
            # A server whose disk hangs knows its leader, forwards our renewals, and tells its watches nothing (seen:
            # for as long as it hung). It does not answer this either; then the next one is asked, and watched.
            now = await self.read([min(names)])
            return Changes(heard.revision, now.entries, now.epoch)
        entries = of.entries(event.kv for event in heard.events)
        return Changes(heard.revision, {entry.name: entry for entry in entries}, heard.epoch)

    def _parts(self) -> tuple[EtcdLink, Watches, Requests]:
        assert self._opened, "open() comes first"
        return self._opened
