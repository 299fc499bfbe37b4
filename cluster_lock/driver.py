"""The contract that every driver keeps. `cluster_lock.testing.conformance` tests each sentence of it.

A driver makes one attempt per verb. It is safe to call concurrently and to cancel at any await. It has no loop, sleep,
retry or policy; those live above it, once. It logs nothing, except what no answer could tell (a file of certificates
that broke). `name` is a key under the driver's prefix ("leader/telegram/42", "standby/web-1.5c0ffee1"), any printable
text; the driver quotes what its backend needs quoted. What strangers put under the prefix makes no verb fail, except
with ForeignValue: keys that are no names are left out. Durations are seconds.

Every verb raises `BackendUnavailable` when no trustworthy answer came within the request timeout that the driver was
opened with (the request may have been applied!), `PermissionRefused` when the credentials do not suffice, and
`BackendRefused` when the server says no for a reason that will not pass. Nothing else gets out, except what the verb
names, CancelledError, and bugs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, runtime_checkable

from .values import BackendNode, Changes, Entry, Grant, Lease, LeaseTimes, Traits, Validity

__all__ = ["Certified", "Driver", "Inspectable"]


class Driver(Protocol):
    @property
    def traits(self) -> Traits:
        """What this backend can do."""
        ...

    @property
    def backend(self) -> str:
        """The backend for people: kind and address, no credentials ("etcd http://10.0.0.1:2379")."""
        ...

    async def open(self) -> None:
        """Prepare connections. Does not need the backend to be up; raises only for what will not pass."""
        ...

    async def close(self) -> None:
        """Drop all connections, in bounded time. Idempotent. Revokes nothing."""
        ...

    async def grant_lease(self, holder: str, ttl: float) -> Lease:
        """A new lease, asked for with `ttl` seconds. `Lease.ttl` is the server's own promise. `holder` is shown where
        the backend can show it.

        Raises BackendRefused with the server's own number when `ttl` is below what it allows; NoLeaseYet while too few
        of several endpoints answer.
        """
        ...

    async def renew(self, lease: Lease) -> int:
        """Make `lease` last a full ttl again. ONE request, however many locks it holds.

        Returns the store's epoch as of this answer (see `Changes.epoch`). Raises LeaseExpired when the server says
        gone.
        """
        ...

    async def revoke(self, lease: Lease) -> None:
        """End `lease`. Idempotent: a lease that is gone is fine. Frees what it still holds, without any lock-delay: the
        driver reads what the lease holds and releases that first where ending a lease would delay the next holder."""
        ...

    async def acquire(self, lease: Lease, name: str, record: bytes) -> Grant | None:
        """Take the lock `name`; None if this lease does not get it. None is said only after a read showed that it does
        not hold the lock (somebody else does, or the backend would not give it yet: a lock-delay).

        Under a lease that holds it already: the grant as it stands (same token, the record unchanged). Leaves as
        `previous` what the last holder wrote. Raises LeaseExpired; ForeignValue if something that is not ours
        stands there; StillHeld if somebody has the lock whom the store does not show.
        """
        ...

    async def release(self, grant: Grant, farewell: bytes) -> None:
        """Free the lock and leave `farewell` as the last word under its name: the next `acquire` returns it as
        `previous`.

        Idempotent; guarded by `grant.index` and the lease in the same transaction: a late copy of an old request, or
        one for a lock that is no longer ours, changes nothing and raises nothing.
        """
        ...

    async def transfer(self, grant: Grant, heir: Entry, record: bytes) -> bool:
        """Give the lock to the lease of `heir` (a contender's entry) in one atomic step, with `record` under the key.

        True: the heir holds it, with a larger index. False: nothing was changed, because the grant is not the one that
        stands there, or the heir's own key is no longer held by the heir's lease. Only where `traits.transfers`.
        """
        ...

    async def announce(self, lease: Lease, name: str, record: bytes) -> None:
        """Put `record` under the key `name` so that it ends with `lease`. Replaces what was there, also a stranger's.

        For contender records and invitations, never for locks. Raises LeaseExpired.
        """
        ...

    async def withdraw(self, lease: Lease, name: str) -> None:
        """Delete the key `name` if it still stands under `lease`; else nothing. Idempotent."""
        ...

    async def read(self, names: Collection[str]) -> Changes:
        """The state of every one of `names` (absent ones too), by ONE linearizable request."""
        ...

    async def scan(self, prefix: str) -> list[Entry]:
        """Every key under `prefix` that a live lease holds, linearizable, oldest index first."""
        ...

    async def wait_changed(self, names: Collection[str], since: object | None, at_most: float) -> Changes:
        """Wait until one of `names` has changed after position `since`, for at most `at_most` seconds.

        ONE waiting request whatever the number of names. `since=None`: as `read`.
        Otherwise `entries` has at least every name that changed; none of the changes after `since` is lost, but that of
        a key that was announced and is gone again, which looks as before. It may return early with nothing changed and
        must return in time. A position that the backend has forgotten is not an error: the answer is then a fresh read
        of all names.
        """
        ...


@runtime_checkable
class Inspectable(Protocol):
    """What a driver may offer beside the contract, for people who look. It changes nothing and needs only the right to
    read. No lock depends on it. The verbs raise what the others raise."""

    async def inspect(self, prefix: str) -> list[Entry]:
        """As `scan`, and also each key at which `acquire` would raise ForeignValue: without a lease, with what stands
        there. ONE request."""
        ...

    async def lease_times(self, lease_ids: Collection[str]) -> Mapping[str, LeaseTimes]:
        """What the server says about these leases; those that it does not know, or may not tell us of, are left out."""
        ...

    async def nodes(self) -> list[BackendNode]:
        """The servers behind the backend, as far as they can be seen from here; none for one without servers."""
        ...


@runtime_checkable
class Certified(Protocol):
    """What a driver with TLS may offer beside the contract."""

    def certificates(self) -> Mapping[str, Validity]:
        """By `ca` and `cert`: how long these files are good, as they were last read. What is not set is left out."""
        ...

    async def server_certificates(self) -> Mapping[str, Validity]:
        """By the server's address: how long the certificate is good that it shows. Servers that are not reached within
        one request timeout, or not trusted, are left out."""
        ...
