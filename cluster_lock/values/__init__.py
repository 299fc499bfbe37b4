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
from .keys import INVITE, LEADER, REPLY, REQUEST, STANDBY, contender_key
from .reasons import EndCode, EndReason
from .record import FIRST_FORMAT, FORMAT, LARGEST, Record, mapping_in
from .timing import GUARD_BEFORE, Timing, not_positive

__all__ = [
    "FIRST_FORMAT",
    "FORMAT",
    "GUARD_BEFORE",
    "HIGHEST_FLOOR",
    "INVITE",
    "LARGEST",
    "LEADER",
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
    "not_positive",
]
