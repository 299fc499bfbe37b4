"""Addresses of a backend's servers, and the one rule about speaking in the clear, for every driver that has a network.

Who gives a CA, a certificate, a secret or one https address means TLS: one address left at http, by a slip or by
somebody's hand, would be sent everything the others are. An address of this very host may be http: nobody listens in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Address:
    """`host` is a name or an IP address, without brackets. `path`: what stands behind it, without a slash at its
    end."""

    host: str
    port: int
    tls: bool
    path: str = ""
    schemes: tuple[str, str] = ("http", "https")
    """In the clear, and with TLS."""

    @property
    def target(self) -> str:
        """ "host:port", as gRPC wants it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_here(self) -> bool:
        """On this host, whatever the network is."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"{self.schemes[self.tls]}://{self.target}{self.path}"


def addresses(
    driver: str,
    texts: Sequence[str],
    given: Mapping[str, object],
    *,
    port: int | None,
    paths: bool = False,
    schemes: tuple[str, str] = ("http", "https"),
) -> tuple[list[Address], list[str]]:
    """The addresses in `texts`, and what is wrong with them, a sentence each, which repeats no password.

    `given`: by name, what is shown or checked on the way (ca, cert, token, password); None or "" is not given. `port`:
    the default one; None: the scheme's own. `paths`: may an address have one? `schemes`: in the clear, and with TLS.
    """
    shown = [name for name, value in given.items() if value not in (None, "")]
    files = any(name in shown for name in ("ca", "cert"))
    secure = bool(shown) or any(text.strip().startswith(f"{schemes[1]}://") for text in texts)
    found, problems = [], []
    for number, text in enumerate(texts, 1):
        try:
            found.append(_address(text.strip(), files, secure, port, paths, schemes))
        except ValueError as error:  # the address is not repeated: who knows what somebody put there
            problems.append(f"{driver}: address {number} of {len(texts)} {error}")
    why = (
        f"{' and '.join(shown)} {'is' if len(shown) == 1 else 'are'} given"
        if shown
        else f"another address is {schemes[1]}"
    )
    problems += [
        f"{driver}: {address} would be spoken to in the clear although {why}: make it {schemes[1]}://"
        f" (only an address of this host may be {schemes[0]})"
        for address in found
        if secure and not address.tls and not address.is_here
    ]
    return found, problems


def _address(text: str, files: bool, secure: bool, port: int | None, paths: bool, schemes: tuple[str, str]) -> Address:
    """Raises ValueError, whose text goes on behind "the address"."""
    like = " or ".join(f"{scheme}://host:{port or 8500}" for scheme in schemes)
    like = f"must look like {like}"
    bare = "://" not in text
    try:
        parts = urlsplit(f"//{text}" if bare else text)
        number = parts.port
    except ValueError as error:
        raise ValueError(f"{like}; the port must be a number up to 65535") from error
    if "@" in text:
        raise ValueError("must not carry a user or password: use the keys of that name")
    path = parts.path.rstrip("/")
    is_wrong = parts.scheme not in ("", *schemes) or not parts.hostname or parts.query or parts.fragment
    # A number alone was meant as a port.
    if is_wrong or (path and (bare or not paths)) or (parts.hostname or "").isdigit():
        raise ValueError(like)
    address = Address(parts.hostname or "", number or 0, parts.scheme == schemes[1], path, schemes)
    # On this host http is the rule, as with the backends' own tools, unless TLS files are there to be used.
    tls = (files or (secure and not address.is_here)) if bare else address.tls
    return replace(address, port=number or port or (443 if tls else 80), tls=tls)
