"""Sentences for people, and the few words that a metric may carry: a label with times in it would never end."""

from __future__ import annotations

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
    ("worker", "worker ended"),
    ("the worker", "worker ended"),
)


def label_of(ending: str, reason: str) -> str:
    """Why a term ended, in one of a few words."""
    said = reason.removeprefix("stepped down: ").lower()
    table = LOSSES if ending == "lost" else STEP_DOWNS
    for beginning, label in table:
        if said.startswith(beginning):
            return label
    return "lost: other" if ending == "lost" else "step-down"
