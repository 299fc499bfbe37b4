"""What stands under the keys for people to read, and what one process tells another there."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

FORMAT, FIRST_FORMAT = 2, 1
"""Of the records and keys: what this version writes, and that of 0.1, whose records do not say it."""
LARGEST = 2**53
"""No fencing token is larger: a backend that takes a million writes a second gets there in 285 years."""
LONGEST = 1000
"""Characters of a text in a record: longer ones are shown to nobody, so a record with one is none of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """JSON, composed once per term and repeated byte for byte. Who holds is the lease, never this. No secret, ever.

    Everything in it is a claim: the store does not check who writes.
    """

    holder: str
    """This process: instance, host, process id, and a part that is its own."""
    instance: str
    """The name of the process slot."""
    host: str
    """The host's own name."""
    pid: int
    """The process id on that host."""
    since: str
    """When it was composed, UTC, for people."""
    version: str
    """Of cluster-lock."""
    format: int = FORMAT
    """Of records and keys."""
    health: str | None = None
    """The address of the health page; None: there is none."""
    config: str | None = None
    """A fingerprint of backend and prefix; None: not told."""
    seen: int = 0
    """The largest of `tokens`, for readers of format 1, which knew of one for all locks."""
    tokens: Mapping[str, int] = field(default_factory=dict)
    """By lock, the largest fencing token that the writer knew of."""
    names: tuple[str, ...] = ()
    """Of a contender: the locks that it waits for."""
    released: bool = False
    """The word of a leader that gave the lock back: its work had ended."""
    handed_over_by: str | None = None
    """The instance that gave this lock to the holder; None: nobody did."""
    gap: float | None = None
    """Seconds for which the leader that handed over had taken no new work by then; None: not told."""
    handover: Mapping[str, Any] = field(default_factory=dict)
    """What the work left for the next leader."""
    answer: Mapping[str, Any] = field(default_factory=dict)
    """Of a contender: its answers to invitations, by lock."""

    def known(self, name: str) -> int:
        """The largest fencing token of the lock `name` that the writer says it knew of; 0 if it says nothing."""
        return self.tokens.get(name, self.seen if self.format == FIRST_FORMAT else 0)

    def to_bytes(self) -> bytes:
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        kept = {key: value for key, value in content.items() if value not in (None, (), {}, False)}
        return _text(kept).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Record | None:
        """The record in `raw`, or None if these bytes are not one of ours. Never raises. Unknown keys of a newer
        version are dropped; what is of another type than we write, or could not be written again, is no record."""
        if (content := mapping_in(raw)) is None:
            return None
        known = {"format": FIRST_FORMAT, **{f.name: content[f.name] for f in fields(cls) if f.name in content}}
        if not all(_CHECKS[name](value) for name, value in known.items()):
            return None
        try:
            return cls(**{**known, "names": tuple(known.get("names", ()))})
        except TypeError:  # one that must be there is not
            return None


def mapping_in(raw: bytes) -> dict[str, Any] | None:
    """The JSON object in these bytes, None if they are none, or one that nobody could write or show again."""
    try:
        content = json.loads(raw)
        _text(content).encode()
    except (ValueError, RecursionError):  # half a surrogate pair, a NaN; brackets a hundred thousand deep
        return None
    return content if isinstance(content, dict) else None


def _text(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_short_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST


def _is_short_text_or_none(value: Any) -> bool:
    return value is None or _is_short_text(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _is_seconds(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (is_number and abs(value) <= LARGEST and math.isfinite(value))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("holder", "instance", "host", "since", "version"), _is_short_text),
    **dict.fromkeys(("health", "config", "handed_over_by"), _is_short_text_or_none),
    **dict.fromkeys(("pid", "seen", "format"), _is_number),
    **dict.fromkeys(("handover", "answer"), _is_mapping),
    "gap": _is_seconds,
    "released": lambda value: isinstance(value, bool),
    "names": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "tokens": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
}
