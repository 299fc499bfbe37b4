"""Which Host header is answered.

A page of a stranger may let its own name point to 127.0.0.1 (DNS rebinding): the browser then takes this server for
that page's and lets it read everything. It sends the stranger's name, and that is how it is known.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit


class Hosts:
    """The host names under which this page may be asked for: `bound` (the configured address), this host's name,
    loopback.

    Beyond loopback others call this host by names that we do not know. Names without a dot, as in a compose file, are
    answered too: nobody out there can own one. A name with dots is answered when the setting names it.
    """

    def __init__(self, bound: str) -> None:
        address = _address(bound)
        self._names = {"localhost", bound.lower()}
        self._anywhere = address is not None and address.is_unspecified
        self._beyond = address is None or not address.is_loopback
        if self._beyond:
            self._names.add(socket.gethostname().lower())

    def allow(self, header: str | None) -> bool:
        """Whether a request with this Host header is meant for us. A number is no name that could be rebound, so on
        all interfaces every number will do."""
        try:
            host = urlsplit(f"//{header}").hostname if header else None
        except ValueError:
            return False
        if not host:
            return False
        address = _address(host)
        if address is not None:
            return self._anywhere or address.is_loopback or host in self._names
        # A number in any other spelling (0x7f000001) has no dot either.
        dotless = self._beyond and "." not in host and host[0].isalpha()
        return dotless or host.rstrip(".") in self._names


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
