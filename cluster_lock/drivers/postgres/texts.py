"""Texts that PostgreSQL can hold: without NUL, and such as UTF-8 can say."""

from __future__ import annotations

from collections.abc import Collection

from cluster_lock.drivers.shared.utf8 import is_text
from cluster_lock.errors import BackendRefused


def fits(text: str) -> bool:
    return "\0" not in text and is_text(text)


def must_fit(name: str, backend: str) -> None:
    """Raises BackendRefused for a name that no row can have."""
    if not fits(name):
        raise BackendRefused(
            f"{backend}: {name!a} cannot be the name of a lock or key in PostgreSQL: it has a NUL or half a character"
        )


def fitted(text: str) -> str:
    """As much of it as can be shown."""
    return text if fits(text) else text.replace("\0", "?").encode(errors="replace").decode()


def shown_names(names: Collection[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(list(names)[:3]) + more
