"""Where the health page listens, as a setting says it."""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT = "127.0.0.1:9876"
OFF = "off"

_FORM = re.compile(r"(?:(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):)?(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """`port` 0: any free one. `may_move`: the next free port will do if this one is taken."""

    host: str
    port: int
    may_move: bool = False

    @property
    def is_open(self) -> bool:
        """Does it listen on every address that this host has?"""
        return self.host in ("0.0.0.0", "::", "0:0:0:0:0:0:0:0")

    @property
    def text(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listen_address(text: str) -> ListenAddress | None:
    """What `127.0.0.1:9876`, `[::1]:9876`, `9876` (on this host only) or `off` (None) says. Raises ValueError.

    Several instances run on one host, so the default address moves on when it is taken. Any other was chosen by
    somebody, for a probe or a scrape that knows only that one.
    """
    text = text.strip()
    if text.lower() == OFF:
        return None
    match = _FORM.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"must be HOST:PORT such as {DEFAULT}, or {OFF}")
    host = (match["host"] or "127.0.0.1").strip("[]")
    found = ListenAddress(host, int(match["port"]))
    return ListenAddress(found.host, found.port, may_move=True) if found.text == DEFAULT else found
