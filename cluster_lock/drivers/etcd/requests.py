"""How names become keys of etcd, and what its requests and answers are made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from cluster_lock.values import LEADER, Entry, Grant, Lease

LAST = "last/"


class Requests:
    """Composes requests for keys under `prefix`."""

    def __init__(self, rpc: Any, prefix: str) -> None:
        self.rpc = rpc
        self._prefix = prefix

    def key(self, name: str) -> bytes:
        return (self._prefix + name).encode()

    def name(self, key: bytes) -> str | None:
        """None for a key that nobody of us can have written: it is no UTF-8."""
        try:
            return key.decode().removeprefix(self._prefix)
        except UnicodeDecodeError:
            return None

    def last(self, name: str) -> bytes:
        """Where the last word about the lock `name` stands."""
        return self.key(LAST + name.removeprefix(LEADER))

    def txn(self, compare: list[Any], success: list[Any], failure: list[Any]) -> Any:
        return self.rpc.TxnRequest(compare=compare, success=success, failure=failure)

    def absent(self, name: str) -> Any:
        kind = self.rpc.Compare
        return kind(result=kind.EQUAL, target=kind.CREATE, key=self.key(name), create_revision=0)

    def held(self, name: str, lease_id: str) -> Any:
        kind = self.rpc.Compare
        return kind(result=kind.EQUAL, target=kind.LEASE, key=self.key(name), lease=number(lease_id))

    def stands(self, grant: Grant) -> list[Any]:
        """That it is this very grant which stands there: the same lease may have been granted it again since."""
        kind = self.rpc.Compare
        key = self.key(grant.name)
        unchanged = kind(result=kind.EQUAL, target=kind.MOD, key=key, mod_revision=grant.index)
        return [unchanged, self.held(grant.name, grant.lease.id)]

    def put(self, key: bytes, value: bytes, lease_id: str | None = None, *, prev_kv: bool = False) -> Any:
        """Without a lease it stays for ever."""
        lease = 0 if lease_id is None else number(lease_id)
        return self.rpc.RequestOp(
            request_put=self.rpc.PutRequest(key=key, value=value, lease=lease, prev_kv=prev_kv),
        )

    def delete(self, name: str) -> Any:
        return self.rpc.RequestOp(request_delete_range=self.rpc.DeleteRangeRequest(key=self.key(name)))

    def get(self, key: bytes) -> Any:
        return self.rpc.RequestOp(request_range=self.rpc.RangeRequest(key=key))

    def entries(self, kvs: Iterable[Any]) -> list[Entry]:
        """Those of the keys that have names, oldest index first."""
        named = [(name, kv) for kv in kvs if (name := self.name(kv.key)) is not None]
        return sorted((_entry(name, kv) for name, kv in named), key=lambda entry: entry.index)

    def entry_to_show(self, kv: Any) -> Entry:
        """With a name in any case: bytes that are no text are spelt out, and lead back to no key."""
        return _entry(kv.key.decode(errors="backslashreplace").removeprefix(self._prefix), kv)


def _entry(name: str, kv: Any) -> Entry:
    """A key as an answer or an event shows it; one without a value was deleted."""
    if not kv.version:
        return Entry(name, None, kv.mod_revision, None)
    return Entry(name, shown_id(kv.lease) if kv.lease else None, kv.mod_revision, kv.value)


def number(lease_id: str) -> int:
    return int(lease_id, 16)


def shown_id(lease: int) -> str:
    """A lease id as etcdctl prints it."""
    return f"{lease:016x}"


def shown(what: Lease | bytes | Collection[bytes]) -> str:
    """A lease, a key or some keys for an error text."""
    if isinstance(what, Lease):
        return f"lease {what.id} of {what.holder}"
    if isinstance(what, bytes):
        return what.decode()
    more = f" and {len(what) - 3} more" if len(what) > 3 else ""
    return ", ".join(shown(key) for key in list(what)[:3]) + more


def span(keys: Collection[bytes]) -> tuple[bytes, bytes]:
    """The first of the keys, and the end of the smallest range that has them all."""
    return min(keys), max(keys) + b"\0"


def after_prefix(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with `prefix`, which is UTF-8: no byte of it is 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
