"""The frozen values that pass between the rooms. Durations are seconds, moments are `clock.now()`. For everybody."""

from .grants import (
    HIGHEST_FLOOR,
    BackendNode,
    Changes,
    Entry,
    Grant,
    Lease,
    LeaseTimes,
    Origin,
    Traits,
    Validity,
)
from .keys import INVITE, LEADER, REPLY, REQUEST, STANDBY, contender_key, telegram_lock
from .reasons import EndCode, EndReason
from .record import FIRST_FORMAT, FORMAT, LARGEST, Record, mapping_in
from .timing import GUARD_BEFORE, LONGEST_POLL, Timing

__all__ = [
    "FIRST_FORMAT",
    "FORMAT",
    "GUARD_BEFORE",
    "HIGHEST_FLOOR",
    "INVITE",
    "LARGEST",
    "LEADER",
    "LONGEST_POLL",
    "REPLY",
    "REQUEST",
    "STANDBY",
    "BackendNode",
    "Changes",
    "EndCode",
    "EndReason",
    "Entry",
    "Grant",
    "Lease",
    "LeaseTimes",
    "Origin",
    "Record",
    "Timing",
    "Traits",
    "Validity",
    "contender_key",
    "mapping_in",
    "telegram_lock",
]
