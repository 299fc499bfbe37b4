"""One key as a file that a person can read: a line of ours, the record, and what the holder before left."""

from __future__ import annotations

import hashlib
import json
import string
from dataclasses import dataclass, replace
from urllib import parse

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
        """The key in `raw`, or None if these bytes are not ours."""
        first, _, rest = raw.partition(b"\n")
        try:
            head = json.loads(first)
            length, previous = head["record"], head["previous"]
            found = cls(head["key"], head["lease"], head["index"], rest[:length], announced=head["announced"])
            if previous is not None:
                found = replace(found, previous=rest[length + 1 : length + 1 + previous])
            whole = found.to_bytes() == raw
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return found if whole else None
