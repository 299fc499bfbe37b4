"""Where etcd is and as whom we come: endpoints, TLS files, user and password, checked before the first request."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from cluster_lock.errors import ConfigError, PermissionRefused

_PORT = 2379


class Secret(Protocol):
    """A password that does not show itself, such as pydantic's SecretStr."""

    def get_secret_value(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Address:
    """`target` is "host:port" as gRPC wants it."""

    target: str
    tls: bool

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.target}"


class Access:
    """All of it, checked. Raises ConfigError with every problem at once."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        user: str | None = None,
        password: str | Secret | None = None,
    ) -> None:
        problems = []
        if not endpoints:
            problems.append("etcd: there must be at least one endpoint, such as http://127.0.0.1:2379")
        if (cert is None) != (key is None):
            problems.append("etcd: a client certificate needs both of cert and key")
        if (user is None) != (password is None):
            problems.append("etcd: give both of user and password, or none of them")
        wants_tls = not (ca is None and cert is None)
        addresses = []
        for endpoint in endpoints:
            try:
                addresses.append(_address(endpoint, wants_tls))
            except ValueError as error:
                problems.append(f"etcd: {error}")
        if problems:
            raise ConfigError(problems)
        self.addresses = tuple(addresses)
        self.ca, self.cert, self.key = ca, cert, key
        self.user = user
        self._password = password

    @property
    def secret(self) -> str:
        """The password."""
        if self._password is None or isinstance(self._password, str):
            return self._password or ""
        return self._password.get_secret_value()

    def pem(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """What ca, key and cert contain, in gRPC's order. Raises ConfigError; PermissionRefused for a file's rights.

        gRPC looks into them at the first handshake only and then says little, so they are tried here.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as error:
            raise _unusable(f"ca {self.ca}", error) from error
        try:
            if self.cert is not None:
                # A callable, or OpenSSL asks for the key's password at the terminal.
                context.load_cert_chain(self.cert, self.key, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            raise _unusable(f"cert {self.cert} with key {self.key}", error) from error
        ca, key, cert = (None if path is None else Path(path).read_bytes() for path in (self.ca, self.key, self.cert))
        return ca, key, cert


def _address(endpoint: str, wants_tls: bool) -> Address:
    """Raises ValueError. Its text never repeats what may hold a password."""
    text = endpoint.strip()
    parts = urlsplit(text if "://" in text else f"{'https' if wants_tls else 'http'}://{text}")
    if "@" in parts.netloc:
        raise ValueError("an endpoint must not carry a user or password: use the keys of that name")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(f"endpoint {endpoint!r} must look like http://host:2379 or https://host:2379")
    if parts.scheme == "http" and wants_tls:
        raise ValueError(
            f"endpoint {endpoint!r} would be spoken to in the clear although ca or cert is given: https://"
        )
    try:
        port = parts.port or _PORT
    except ValueError as error:
        raise ValueError(f"endpoint {endpoint!r}: the port must be a number up to 65535") from error
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(f"{host}:{port}", parts.scheme == "https")


def _unusable(what: str, error: OSError) -> ConfigError | PermissionRefused:
    if isinstance(error, PermissionError):
        return PermissionRefused(f"etcd: {what} cannot be read: {error.strerror}")
    return ConfigError([f"etcd: {what} cannot be used: {error.strerror or error}"])
