"""Sentences for people, and the few words that a metric may carry: a label with times in it would never end."""

from __future__ import annotations

import re

LOSSES = (
    ("the lease was last renewed", "lost: not renewed"),
    ("the backend says that the lease is gone", "lost: lease gone"),
    ("the store was set back", "lost: store set back"),
    ("the key of", "lost: key gone"),
    ("the session", "lost: session ended"),
)
STEP_DOWNS = (
    ("telegram has not been reached", "telegram out of reach"),
    ("somebody polls outside", "conflicts"),
    ("sig", "stopped"),
    ("stop", "stopped"),
    ("bot ", "bot failed"),
    ("the work is done", "work done"),
    ("the worker ", "worker ended"),
)
_ASKED = re.compile(r".* asked for it", re.DOTALL)
"""Somebody's name stands in front, which may be any."""
OTHERS = "step-down", "lost: other"


def label_of(ending: str, reason: str) -> str:
    """Why a term ended, in one of a few words."""
    said = reason.removeprefix("stepped down: ").lower()
    if ending != "lost" and _ASKED.fullmatch(said):
        return OTHERS[0]
    table = LOSSES if ending == "lost" else STEP_DOWNS
    for beginning, label in table:
        if said.startswith(beginning):
            return label
    return OTHERS[ending == "lost"]


def all_labels() -> list[str]:
    """Each that there may be."""
    return list(dict.fromkeys([*(label for _, label in (*STEP_DOWNS, *LOSSES)), *OTHERS]))


def word(label: str) -> str:
    """A label as the value of a metric's: `lost_not_renewed`."""
    return re.sub("[^a-z0-9]+", "_", label)
