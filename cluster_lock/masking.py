"""Blotting secrets out of what people get to read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MASK = "***"
SECRET_NAME = re.compile(r"token|password|passwd|secret|credential|api[_-]?key|private", re.IGNORECASE)
"""What something is called that holds a secret."""

_BY_LOOK = (
    re.compile(r"(?<!\d)\d{5,}:[\w-]{10,}"),  # a Telegram token, also in "/bot123:ABC/getMe"
    re.compile(r"(?<=://)[^/@\s]+(?=@)"),  # user and password in an address
)
_SHORTEST = 4


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` fit for a terminal or a log: without these secrets, without what looks like one, and printable."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, MASK)
    for look in _BY_LOOK:
        text = look.sub(MASK, text)
    return text.encode(errors="backslashreplace").decode()


def masked_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line without what options with such a name are given, as `--token=X`, `--token X` or `TOKEN=X`."""
    shown: list[str] = []
    hide = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        is_option = argument.startswith("-")
        if hide and not is_option:
            shown.append(MASK)
        elif equals and SECRET_NAME.search(name):
            shown.append(f"{name}={MASK}")
        else:
            shown.append(masked(argument))
        hide = is_option and not equals and not name.endswith("file") and bool(SECRET_NAME.search(name))
    return shown
