"""One key as a file that a person can read: a line of ours, the record, and what the holder before left."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib import parse

from cluster_lock.errors import PermissionRefused
from cluster_lock.host.private_files import read_private

from .counter import LARGEST_NUMBER

LEASE_ID = re.compile(r"[0-9a-f]{16}")
_LONGEST_HEAD = 64 * 1024
_OF_THE_FILE = {errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO, errno.EISDIR, errno.EIO}
"""What the system says of one file. The rest (too many open files) is about this process, and passes."""
_PLAIN = frozenset(string.ascii_lowercase + string.digits + "-_.")
_LONGEST = 180


def file_name(key: str) -> str:
    """`key` as a file name, for every file system: "leader/telegram/42" -> "leader+telegram+42.json".

    Different keys have different names. Capitals are quoted: some file systems do not tell them from small letters.
    """
    quoted = quote(key)
    if len(quoted) > _LONGEST:
        quoted = f"{quoted[:_LONGEST]}~{hashlib.sha256(key.encode()).hexdigest()}"
    return f"{quoted}.json"


def quote(text: str) -> str:
    return "".join(
        letter if letter in _PLAIN else "+" if letter == "/" else "".join(f"%{byte:02x}" for byte in letter.encode())
        for letter in text
    )


def unquote(quoted: str) -> str:
    return parse.unquote(quoted.replace("+", "/"))


def may_start_with(name: str, prefix: str) -> bool:
    """Could the file `name` be of a key under `prefix`? Only what is in the file says so for certain."""
    quoted = quote(prefix)[:_LONGEST]
    return name.endswith(".json") and name.startswith(quoted)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """`lease` None: free, and `record` is the last word about it. `index`: the number of the change that wrote this.
    `announced`: no lock, so nothing of it is kept when its lease ends."""

    key: str
    lease: str | None
    index: int
    record: bytes
    previous: bytes | None = None
    announced: bool = False

    def to_bytes(self) -> bytes:
        head = {
            "key": self.key,
            "lease": self.lease,
            "index": self.index,
            "announced": self.announced,
            "record": len(self.record),
            "previous": None if self.previous is None else len(self.previous),
        }
        return b"\n".join([json.dumps(head, ensure_ascii=False).encode(), self.record, self.previous or b"", b""])

    @classmethod
    def from_bytes(cls, raw: bytes) -> KeyFile | None:
        """The key in `raw`, or None if these bytes are not ours: what we write is read back byte for byte."""
        first, _, rest = raw.partition(b"\n")
        try:
            head = json.loads(first) if len(first) <= _LONGEST_HEAD else None
            found = cls._of(head, rest) if isinstance(head, dict) else None
            return found if found is not None and found.to_bytes() == raw else None
        except (ValueError, RecursionError):  # a text that is no UTF-8, digits or brackets by the thousand
            return None

    @classmethod
    def _of(cls, head: dict[str, Any], rest: bytes) -> KeyFile | None:
        key, lease, announced = head.get("key"), head.get("lease"), head.get("announced")
        index: Any = head.get("index")
        length: Any = head.get("record")
        previous: Any = head.get("previous")
        if not (isinstance(key, str) and isinstance(announced, bool) and _counts(index) and _counts(length)):
            return None
        if lease is not None and not (isinstance(lease, str) and LEASE_ID.fullmatch(lease)):
            return None
        if previous is not None and not _counts(previous):
            return None
        before = None if previous is None else rest[length + 1 : length + 1 + previous]
        return cls(key, lease, index, rest[:length], before, announced)


def _counts(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_NUMBER


@dataclass(frozen=True, slots=True)
class Foreign:
    """What stands at the place of a key and is none: `why`, and what can be shown of it."""

    why: str
    raw: bytes


def read_key(path: Path, key: str | None = None) -> KeyFile | Foreign | None:
    """What stands at `path`, where the key `key` belongs; None if there is nothing. Whatever it is, nothing is raised
    for it: the file of one key is no concern of who asks for another."""
    try:
        raw = read_private(path)
    except PermissionRefused as error:
        return Foreign(str(error), f"({error})".encode(errors="replace"))
    except OSError as error:
        if error.errno not in _OF_THE_FILE:
            raise
        why = f"cannot be read ({error.strerror})"
        return Foreign(f"{path} {why}: look at it, then delete it", f"({why})".encode())
    if not (raw or b"").strip(b"\0"):  # a file that a power cut left empty is nobody's word
        return None
    assert raw is not None
    found = KeyFile.from_bytes(raw)
    if found is None:
        return Foreign(f"what stands in {path} is not ours: look at it, then delete it", raw)
    if key is not None and found.key != key:
        return Foreign(f"what stands in {path} is of the key {found.key!r}: look at it, then delete it", raw)
    return found
