"""Where things stand under the prefix."""

from __future__ import annotations

from .record import FIRST_FORMAT, Record

LEADER, STANDBY, INVITE = "leader/", "standby/", "invite/"
"""Where the keys stand under the prefix: locks by name, contender records by process, invitations by lock name."""
REQUEST, REPLY = "request/", "reply/"
"""What a person asks of the leader of a lock, and what that leader answers, both by lock name."""


def contender_key(record: Record) -> str:
    """The key under which the process that wrote this record stands by, if it does. It has a part that is unique per
    process, because two processes may have one instance's name. In the first format it was that name alone."""
    unique = "" if record.format == FIRST_FORMAT else f".{record.holder.rpartition('-')[2]}"
    return f"{STANDBY}{record.instance}{unique}"
